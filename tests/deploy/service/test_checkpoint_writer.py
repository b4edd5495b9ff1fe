"""Checkpoints of a run: told once they are there, copied where the recipe says so, and the oldest removed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import CheckpointNotCopied, CheckpointWritten
from common.types import WeightSnapshot
from deploy.runs.run_folder import RunFolder
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.stepper import Counts
from learner.checkpoint import read_checkpoint
from tests.fakes import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "try")


def write(writer: CheckpointWriter, step: int) -> Path:
    snapshot, optimizer = WeightSnapshot(step, {"w": np.full(2, step)}), {"w.step": np.zeros(1)}
    counts = Counts(step, groups_learned=4 * step, images_skipped=1)
    return writer.write(snapshot, optimizer, counts, {"learned_below": 2 * step})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_told_with_its_place_once_it_is_there(
    tiny_recipe: Recipe, folder: RunFolder, told: Told
) -> None:
    path = write(CheckpointWriter(tiny_recipe, folder, told), 5)
    (fact,) = told.of(CheckpointWritten)
    assert (fact.step, fact.path) == (5, path) == (5, folder.checkpoints / "step-000005")
    assert 0 < fact.seconds < 10
    assert read_checkpoint(path).state.groups_learned == 20


def test_the_newest_are_kept_in_the_folder_and_at_the_url(
    tiny_recipe: Recipe, folder: RunFolder, told: Told, tmp_path: Path
) -> None:
    changes = {"checkpoint.url": (tmp_path / "store").as_uri(), "checkpoint.keep": 2}
    writer = CheckpointWriter(with_changes(tiny_recipe, changes), folder, told)
    for step in (1, 2, 3):
        write(writer, step)
    assert names(folder.checkpoints) == names(tmp_path / "store" / "try") == ["step-000002", "step-000003"]
    assert [fact.event for fact in told.facts] == ["checkpoint"] * 3


def test_a_copy_that_fails_is_told_of_and_the_run_has_its_checkpoint(
    tiny_recipe: Recipe, folder: RunFolder, told: Told, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    writer = CheckpointWriter(with_changes(tiny_recipe, {"checkpoint.url": store.as_uri()}), folder, told)
    shutil.rmtree(store)
    store.touch()
    path = write(writer, 3)
    failed, written = told.facts
    assert isinstance(failed, CheckpointNotCopied)
    assert failed.step == 3
    assert failed.reason
    assert "\n" not in failed.reason
    assert isinstance(written, CheckpointWritten)
    assert read_checkpoint(path).state.step == 3
