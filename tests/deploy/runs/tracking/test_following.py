"""What is recorded reaches the trackers, and a tracker that fails does not stop a run."""

import threading
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.facts import Ended, PictureSaved, Resumed, Scored, TrackerFailed, TrackingBehind
from deploy.runs.recorder import Recorder
from deploy.runs.tracking import following
from deploy.runs.tracking.following import Following, tracking
from deploy.runs.tracking.tracker import require_packages
from tests.example_facts import EXAMPLES, learned
from tests.fakes import Told


class Notebook:
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
def trackers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Notebook]:
    """What the recipe's trackers are taken to be."""
    fakes: dict[str, Notebook] = {}
    monkeypatch.setattr(following, "open_trackers", lambda *_: fakes)
    return fakes


def test_a_tracker_sees_what_is_recorded_in_order_for_the_time_of_the_block(
    trackers: dict[str, Notebook], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trackers["one"] = one = Notebook()
    recorder = Recorder()
    with tracking(tiny_recipe, tmp_path, recorder):
        recorder.tell(Scored(0, {"fd": 2.0}))
        recorder.tell(PictureSaved(0, tmp_path / "a.png"))
        recorder.tell(learned(1, loss=0.5))
        recorder.tell(Resumed(0))
        recorder.tell(Ended("succeeded", {"status": "succeeded"}))
    recorder.tell(learned(2))
    assert one.calls == [
        ("evaluation", {"step": 0, "fd": 2.0}),
        ("picture", 0, tmp_path / "a.png"),
        ("metrics", learned(1, loss=0.5).metrics()),
        ("rewind", 0),
        ("close", "succeeded"),
    ]


def test_what_no_tracker_shows_is_passed_by(
    trackers: dict[str, Notebook], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trackers["one"] = one = Notebook()
    recorder = Recorder()
    with tracking(tiny_recipe, tmp_path, recorder):
        for fact in EXAMPLES:
            recorder.tell(fact)
    shown = [call[0] for call in one.calls]
    assert shown == ["rewind", "metrics", "evaluation", "evaluation", "picture", "close"]


def test_a_run_whose_end_nobody_told_has_failed(
    trackers: dict[str, Notebook], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    trackers["one"] = one = Notebook()
    with pytest.raises(ZeroDivisionError), tracking(tiny_recipe, tmp_path, Recorder()):
        raise ZeroDivisionError
    assert one.calls == [("close", "failed")]


def test_a_tracker_that_fails_is_told_of_and_the_others_go_on(
    trackers: dict[str, Notebook], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    broken, sound = trackers["broken"], trackers["sound"] = Notebook(fails_at="metrics"), Notebook()
    told = Told()
    recorder = Recorder([told])
    with tracking(tiny_recipe, tmp_path, recorder):
        for step in (1, 2):
            recorder.tell(learned(step))
    assert broken.calls == []
    assert [call[0] for call in sound.calls] == ["metrics", "metrics", "close"]
    assert told.of(TrackerFailed) == [TrackerFailed("broken", "OSError: no network")]


def test_the_driver_does_not_wait_for_a_slow_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CAPACITY", 2)
    gate, told = threading.Event(), Told()

    class Slow(Notebook):
        def metrics(self, line: dict[str, Any]) -> None:
            gate.wait(10)
            super().metrics(line)

    slow = Slow()
    carrier = Following({"slow": slow}, told)
    for step in range(8):
        carrier.record(learned(step))
    gate.set()
    carrier.close()
    assert told.facts == [TrackingBehind(2)]
    assert 2 <= len(slow.calls) - 1 <= 3
    assert slow.calls[-1] == ("close", "failed")


def test_a_package_that_is_missing_names_its_extra(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.runs.tracking.tracker.find_spec", lambda name: None)
    assert require_packages(tiny_recipe) == "the run folder alone"
    with pytest.raises(RecipeError, match=r"tracking\.wandb is set, .*: pip install '\.\[wandb\]', or take"):
        require_packages(with_changes(tiny_recipe, {"tracking.wandb": {}}))
