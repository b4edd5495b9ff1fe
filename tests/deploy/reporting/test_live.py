"""The page that the driver serves: made on demand, kept for a while, refreshed in the browser."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.reporting import live
from deploy.reporting.live import LiveReport
from tests.deploy.reporting.conftest import event, step
from tests.deploy.reporting.test_report import Page


class Clock:
    """Stands still but for what is added; making a page takes `seconds_a_page`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_a_page: float = 0.0):
        self.now = 0.0
        self.pages = 0

        def made(*arguments) -> str:
            self.now += seconds_a_page
            self.pages += 1
            return f"page {self.pages}"

        monkeypatch.setattr(live, "render", made)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run_at_work(run_folder: Callable[..., Path]) -> Path:
    return run_folder([step(1), step(2, step_seconds=6.0)], [event(0, "started", resumed_from="")])


def test_a_page_is_kept_for_a_while_however_many_look(run_at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    report = LiveReport(run_at_work, clock)
    assert [report(), report()] == ["page 1"] * 2
    clock.now = 4.9
    assert report() == "page 1"
    clock.now = 5.0
    assert report() == "page 2"


def test_pages_take_a_twentieth_of_the_time_at_the_most(
    run_at_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, seconds_a_page=2.0)
    report = LiveReport(run_at_work, clock)
    report()
    clock.now = 41.9
    assert report() == "page 1"
    clock.now = 42.0
    assert report() == "page 2"


def test_the_page_of_a_run_at_work_says_so_asks_for_a_newer_one_and_tells_the_time_left(run_at_work: Path) -> None:
    page = Page(LiveReport(run_at_work)())
    assert "try at work" in page.text
    assert "It last wrote" not in page.text
    assert "time left about 40 s" in page.text  # eight steps of five seconds
    (body,) = page.all("body")
    assert body["data-refresh"] == "10"
    policy = next(meta["content"] for meta in page.all("meta") if "Content-Security-Policy" in meta.values())
    assert policy is not None
    assert policy.endswith("connect-src 'self'")
    assert {"http-equiv": "refresh", "content": "10"} in page.all("meta")  # in noscript


def test_a_run_that_has_ended_while_its_driver_still_answers_shows_its_end(ended_run: Path) -> None:
    assert "try succeeded" in Page(LiveReport(ended_run)()).text


def test_a_line_that_is_being_written_is_no_trouble(run_at_work: Path) -> None:
    with (run_at_work / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(step(3))[:40])
    assert "at work" in LiveReport(run_at_work)()
