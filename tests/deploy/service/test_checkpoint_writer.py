"""Checkpoints of a run: told once they are there, copied where the recipe says so, and the oldest removed."""

import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import CheckpointNotCopied, CheckpointWritten
from common.types import TrainingState
from deploy.runs.run_folder import RunFolder
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.stepper import Counts
from learner.checkpoint import read_checkpoint
from learner.learner_group import Asked
from tests.fakes import AtOnce, FakeRay, Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "try")


class Learner:
    """Has what a checkpoint holds when it is asked."""

    def __init__(self, ray: FakeRay) -> None:
        self.ray, self.step = ray, 0
        self.is_there = True

    def training_state(self) -> Asked:
        arrays = {"w": np.full(2, self.step)}, frozenset(), {"w.step": np.zeros(1)}
        return Asked(self.ray.put(self.step), self.ray.put(TrainingState(*arrays)), 1e9)

    def answer(self, asked: Asked) -> int | None:
        return self.ray.get(asked.told) if self.is_there else None


@pytest.fixture
def writer_of(folder: RunFolder, told: Told) -> Callable[..., CheckpointWriter]:
    ray = FakeRay()

    def make(recipe: Recipe, thread: Executor | None = None) -> CheckpointWriter:
        return CheckpointWriter(recipe, folder, told, ray, Learner(ray), thread or AtOnce())  # type: ignore[arg-type]

    return make


def begin(writer: CheckpointWriter, step: int) -> None:
    writer._learner.step = step  # type: ignore[attr-defined]
    writer.begin(Counts(step, groups_learned=4 * step, images_skipped=1), {"learned_below": 2 * step})


def write(writer: CheckpointWriter, step: int) -> None:
    begin(writer, step)
    assert writer.advance()
    assert not writer.is_busy


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_told_with_its_place_once_it_is_there(
    tiny_recipe: Recipe, folder: RunFolder, told: Told, writer_of: Callable[..., CheckpointWriter]
) -> None:
    write(writer_of(tiny_recipe), 5)
    (fact,) = told.of(CheckpointWritten)
    assert (fact.step, fact.path) == (5, folder.checkpoints / "step-000005")
    assert 0 < fact.seconds < 10
    assert read_checkpoint(fact.path).state.groups_learned == 20


def test_the_newest_are_kept_in_the_folder_and_at_the_url(
    tiny_recipe: Recipe,
    folder: RunFolder,
    told: Told,
    tmp_path: Path,
    writer_of: Callable[..., CheckpointWriter],
) -> None:
    changes = {"checkpoint.url": (tmp_path / "store").as_uri(), "checkpoint.keep": 2}
    writer = writer_of(with_changes(tiny_recipe, changes))
    for step in (1, 2, 3):
        write(writer, step)
    assert names(folder.checkpoints) == names(tmp_path / "store" / "try") == ["step-000002", "step-000003"]
    assert [fact.event for fact in told.facts] == ["checkpoint"] * 3


def test_a_copy_that_fails_is_told_of_and_the_run_has_its_checkpoint(
    tiny_recipe: Recipe,
    folder: RunFolder,
    told: Told,
    tmp_path: Path,
    writer_of: Callable[..., CheckpointWriter],
) -> None:
    store = tmp_path / "store"
    writer = writer_of(with_changes(tiny_recipe, {"checkpoint.url": store.as_uri()}))
    shutil.rmtree(store)
    store.touch()
    write(writer, 3)
    failed, written = told.facts
    assert isinstance(failed, CheckpointNotCopied)
    assert failed.step == 3
    assert failed.reason
    assert "\n" not in failed.reason
    assert isinstance(written, CheckpointWritten)
    assert read_checkpoint(written.path).state.step == 3


def test_one_is_in_flight_from_its_begin_until_it_is_told_and_nothing_waits_for_it(
    tiny_recipe: Recipe, told: Told, folder: RunFolder, writer_of: Callable[..., CheckpointWriter]
) -> None:
    with ThreadPoolExecutor(1) as thread:
        writer = writer_of(tiny_recipe, thread)
        writer._learner.is_there = False  # type: ignore[attr-defined]
        begin(writer, 2)
        assert writer.advance()
        assert (writer.is_busy, len(writer.waiting_for()), told.facts) == (True, 1, [])
        with pytest.raises(AssertionError, match="one at a time"):
            begin(writer, 3)
        writer._learner.is_there = True  # type: ignore[attr-defined]
        blocked = Event()
        release = thread.submit(lambda: blocked.wait(10))  # before the write, as a slow disk is
        writer.advance()
        assert (writer.is_busy, writer.waiting_for(), told.facts) == (True, [], [])
        blocked.set()
        assert release.result()
        writer.wait(10)
        assert (writer.is_busy, told.facts) == (True, [])  # told by the loop's own thread alone
        writer.advance()
        assert (writer.is_busy, [fact.step for fact in told.of(CheckpointWritten)]) == (False, [2])


def test_what_cannot_be_written_is_an_error_of_the_loop(
    tiny_recipe: Recipe, told: Told, folder: RunFolder, writer_of: Callable[..., CheckpointWriter]
) -> None:
    writer = writer_of(tiny_recipe)
    folder.checkpoints.parent.mkdir(parents=True, exist_ok=True)
    folder.checkpoints.touch()
    begin(writer, 1)
    with pytest.raises(OSError, match="Not a directory"):
        writer.advance()
    assert not writer.is_busy
