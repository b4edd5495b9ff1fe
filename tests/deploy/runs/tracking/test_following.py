"""What is written to the run folder reaches the trackers, and a tracker that fails does not stop a run."""

import threading
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from deploy.runs.run_folder import RunFolder
from deploy.runs.tracking import following
from deploy.runs.tracking.following import Following, tracking
from deploy.runs.tracking.tracker import require_packages


class Recorder:
    """A tracker that keeps its calls; raises at calls of the kind `fails_at`."""

    def __init__(self, fails_at: str = ""):
        self.calls: list[tuple[Any, ...]] = []
        self._fails_at = fails_at

    def _call(self, *call: Any) -> None:
        if call[0] == self._fails_at:
            raise OSError("no network")
        self.calls.append(call)

    def metrics(self, line: dict[str, Any]) -> None:
        self._call("metrics", line)

    def evaluation(self, line: dict[str, Any]) -> None:
        self._call("evaluation", line)

    def picture(self, step: int, path: Path) -> None:
        self._call("picture", step, path)

    def rewind(self, step: int) -> None:
        self._call("rewind", step)

    def close(self, status: str) -> None:
        self._call("close", status)


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    """What the recipe's trackers are taken to be."""
    fakes: dict[str, Recorder] = {}
    monkeypatch.setattr(following, "open_trackers", lambda *_: fakes)
    return fakes


def test_a_tracker_sees_what_is_written_in_order(
    trackers: dict[str, Recorder], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trackers["one"] = one = Recorder()
    folder = RunFolder(tmp_path)
    with tracking(tiny_recipe, folder):
        folder.evaluation({"step": 0, "fd": 2.0})
        folder.picture(0, tmp_path / "a.png")
        folder.metrics({"step": 1, "loss": 0.5})
        folder.go_back_to(0)
        folder.summary({"status": "succeeded"})
    folder.metrics({"step": 2})
    assert one.calls == [
        ("evaluation", {"step": 0, "fd": 2.0}),
        ("picture", 0, tmp_path / "a.png"),
        ("metrics", {"step": 1, "loss": 0.5}),
        ("rewind", 0),
        ("close", "succeeded"),
    ]


def test_a_run_that_leaves_no_summary_has_failed(
    trackers: dict[str, Recorder], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trackers["one"] = one = Recorder()
    with pytest.raises(ZeroDivisionError), tracking(tiny_recipe, RunFolder(tmp_path)):
        raise ZeroDivisionError
    assert one.calls == [("close", "failed")]


def test_a_tracker_that_fails_is_told_of_and_the_others_go_on(
    trackers: dict[str, Recorder], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    broken, sound = trackers["broken"], trackers["sound"] = Recorder(fails_at="metrics"), Recorder()
    folder = RunFolder(tmp_path)
    with tracking(tiny_recipe, folder):
        for step in (1, 2):
            folder.metrics({"step": step})
    assert broken.calls == []
    assert [call[0] for call in sound.calls] == ["metrics", "metrics", "close"]
    (event,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert '"event": "tracker_failed", "tracker": "broken", "reason": "OSError: no network"' in event


def test_the_driver_does_not_wait_for_a_slow_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CAPACITY", 2)
    gate, events = threading.Event(), []

    class Slow(Recorder):
        def metrics(self, line: dict[str, Any]) -> None:
            gate.wait(10)
            super().metrics(line)

    slow = Slow()
    carrier = Following({"slow": slow}, lambda kind, **facts: events.append((kind, facts)))
    for step in range(8):
        carrier.tell("metrics", {"step": step})
    gate.set()
    carrier.close()
    assert events == [("tracking_behind", {"capacity": 2})]
    assert 2 <= len(slow.calls) - 1 <= 3
    assert slow.calls[-1] == ("close", "failed")


def test_a_package_that_is_missing_names_its_extra(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.runs.tracking.tracker.find_spec", lambda name: None)
    assert require_packages(tiny_recipe) == "the run folder alone"
    with pytest.raises(RecipeError, match=r"tracking\.wandb is set, .*: pip install '\.\[wandb\]', or take"):
        require_packages(with_changes(tiny_recipe, {"tracking.wandb": {}}))
