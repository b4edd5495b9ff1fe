"""Checkpoints are complete or absent, and what is resumed is what was saved."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_tensors
from torch import nn

from common.config.lora import LoraSection
from common.errors import CheckpointError
from common.models.adapter_files import ADAPTERS, CONFIG, AdaptersOf, Base, read_adapters
from common.models.weights_files import load_weights
from common.weights.snapshot import tensors_of
from learner.checkpoint import (
    MANIFEST,
    OPTIMIZER,
    POLICY,
    STATE,
    CheckpointState,
    newest_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    training_state,
    write_checkpoint,
)
from tests.common.test_atomic import names, no_file_above


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).bfloat16())


def state(step: int) -> CheckpointState:
    ledger = {"learned_below": 4, "learned_beyond": [6]}
    return CheckpointState(step, ledger, groups_learned=31, images_skipped=1, recipe={"seed": 7})


MOMENTS = {
    "0.weight.step": np.array(3, np.float32),
    "0.weight.exp_avg": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def write(folder: Path, step: int, seed: int = 0) -> Path:
    return write_checkpoint(folder, training_state(model(seed).state_dict(), MOMENTS), state(step))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))


each_damage = pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
each_file = pytest.mark.parametrize("name", [POLICY, OPTIMIZER, STATE])


def test_state_optimizer_and_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    path = write(tmp_path, step=3, seed=1)
    assert path == tmp_path / "step-000003"
    checkpoint = read_checkpoint(path)
    saved, arrays = checkpoint.state, checkpoint.optimizer
    assert saved == state(3)
    assert arrays.keys() == MOMENTS.keys()
    for name, array in MOMENTS.items():
        np.testing.assert_array_equal(arrays[name], array)
    loaded = model(seed=2)
    load_weights(loaded, path, what="policy")
    for name, value in model(seed=1).state_dict().items():
        assert loaded.state_dict()[name].equal(value)
        assert loaded.state_dict()[name].dtype == value.dtype


def test_a_checkpoint_leaves_no_temporary_files_and_replaces_the_same_step(tmp_path: Path) -> None:
    write(tmp_path, step=3, seed=0)
    path = write(tmp_path, step=3, seed=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000003"]
    assert sorted(entry.name for entry in path.iterdir()) == sorted([MANIFEST, OPTIMIZER, POLICY, STATE])
    loaded = model(seed=2)
    load_weights(loaded, path, what="policy")
    assert loaded.state_dict()["0.weight"].equal(model(seed=1).state_dict()["0.weight"])


LORA = LoraSection(rank=2, alpha=3)
ADAPTERS_OF = AdaptersOf(LORA, Base("base.pt", "0123abcd"))
TENSORS = {"0.lora_A.weight": torch.arange(6.0).view(2, 3), "0.lora_B.weight": torch.ones(4, 2)}


def write_adapters(folder: Path, step: int) -> Path:
    return write_checkpoint(folder, training_state(TENSORS, MOMENTS), state(step), ADAPTERS_OF)


def test_of_adapters_only_they_are_kept_with_the_base_that_they_belong_to(tmp_path: Path) -> None:
    path = write_adapters(tmp_path, step=3)
    assert sorted(file.name for file in path.iterdir()) == sorted([ADAPTERS, CONFIG, MANIFEST, OPTIMIZER, STATE])
    checkpoint = read_checkpoint(path)
    assert (checkpoint.state, checkpoint.base) == (state(3), ADAPTERS_OF.base)
    tensors = tensors_of(checkpoint.weights)
    assert tensors.keys() == TENSORS.keys()
    assert all(tensors[name].equal(tensor) for name, tensor in TENSORS.items())
    assert read_adapters(path / ADAPTERS).section == LORA
    assert newest_checkpoint(tmp_path) == path


@each_damage
@pytest.mark.parametrize("name", [ADAPTERS, CONFIG, OPTIMIZER, STATE])
def test_adapters_with_a_file_that_is_not_as_it_was_written_are_passed_over(
    name: str, damage, tmp_path: Path
) -> None:
    older, newer = write_adapters(tmp_path, step=3), write_adapters(tmp_path, step=4)
    damage(newer / name)
    assert newest_checkpoint(tmp_path) == older
    with pytest.raises(CheckpointError, match="is not the file that the checkpoint's manifest names"):
        read_checkpoint(newer)


@each_damage
@each_file
def test_a_file_that_is_not_as_it_was_written_is_refused_by_its_name(name: str, damage, tmp_path: Path) -> None:
    path = write(tmp_path, step=3)
    damage(path / name)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path / name} is not the file that the checkpoint's manifest names")


@each_damage
@each_file
def test_an_older_intact_checkpoint_is_taken_instead_of_a_damaged_one(
    name: str, damage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = write(tmp_path, step=3), write(tmp_path, step=10)
    assert newest_checkpoint(tmp_path) == newer
    damage(newer / name)
    assert newest_checkpoint(tmp_path) == older
    assert f"{newer / name} is damaged" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_manifest_that_says_nothing_is_damage_too(content: str, tmp_path: Path) -> None:
    older, newer = write(tmp_path, step=3), write(tmp_path, step=4)
    (newer / MANIFEST).write_text(content)
    assert newest_checkpoint(tmp_path) == older
    with pytest.raises(CheckpointError, match="is not the file that the checkpoint's manifest names"):
        read_checkpoint(newer)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    older, newer = write(tmp_path, step=3), write(tmp_path, step=4)
    (newer / MANIFEST).unlink()
    assert newest_checkpoint(tmp_path) == older
    with pytest.raises(CheckpointError, match=rf"{newer} is no complete checkpoint: {MANIFEST} is missing"):
        read_checkpoint(newer)


def test_a_half_written_checkpoint_is_ignored_and_cleared_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = write(tmp_path, step=3)

    def disk_full(*_: object) -> str:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("learner.checkpoint.write_safetensors", disk_full)
        with pytest.raises(OSError, match="disk full"):
            write(tmp_path, step=4)
    assert newest_checkpoint(tmp_path) == older
    write(tmp_path, step=4)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def test_a_checkpoint_that_fails_to_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, step=3)

    def disk_full(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("learner.checkpoint.write_safetensors", disk_full)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, step=3)
    assert read_checkpoint(path).state == state(3)


@pytest.mark.parametrize("limit", [0, 100])
def test_a_full_disk_leaves_no_temporary_and_the_older_ones_whole(limit: int, tmp_path: Path) -> None:
    older, same = write(tmp_path, step=3), write(tmp_path, step=4)
    with no_file_above(limit), pytest.raises(OSError, match="File too large") as caught:
        write(tmp_path, step=4)
    assert caught.value.filename == str(same)
    assert names(tmp_path) == ["step-000003", "step-000004"]
    assert [read_checkpoint(path).state.step for path in (older, same)] == [3, 4]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename"])
def test_an_error_at_the_last_moment_leaves_all_as_it_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = write(tmp_path, step=3), Path.rename

    def failing(*arguments: Any) -> Any:
        if call == "os.fsync" or arguments[0].name == ".step-000003.tmp":
            raise OSError(errno.EIO, "Input/output error")
        return rename(*arguments)

    monkeypatch.setattr(call, failing)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path, step=3, seed=1)
    assert names(tmp_path) == ["step-000003"]
    assert load_tensors(path / POLICY)["0.weight"].equal(model(0).state_dict()["0.weight"])


def test_whoever_may_read_one_file_may_read_all(tmp_path: Path) -> None:
    path = write(tmp_path, step=3)
    (tmp_path / "plain").touch()
    assert {file.stat().st_mode for file in path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize("name", [POLICY, OPTIMIZER])
def test_nan_in_a_checkpoint_is_refused_with_file_and_tensor(name: str, tmp_path: Path) -> None:
    weights, moments = model(0).state_dict(), {each: np.array(array) for each, array in MOMENTS.items()}
    tensor = {POLICY: "0.weight", OPTIMIZER: "0.weight.exp_avg"}[name]
    if name == POLICY:
        weights[tensor].fill_(np.nan)
    else:
        moments[tensor].fill(np.nan)
    path = write_checkpoint(tmp_path, training_state(weights, moments), state(3))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == f"{path / name} holds NaN or infinity in 1 ({tensor}): resume from an older one"


def test_the_newest_is_that_of_the_highest_step(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    assert newest_checkpoint(tmp_path) is None
    for step in (9, 1_000_000, 999_999, 10):
        write(tmp_path, step)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-1000000"


def test_pruning_keeps_the_newest_and_touches_nothing_else(tmp_path: Path) -> None:
    for step in (1, 2, 999_999, 1_000_000):
        write(tmp_path, step)
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-000000").mkdir()  # without a manifest
    prune_checkpoints(tmp_path, keep=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "step-000000",
        "step-1000000",
        "step-999999",
        "step-notes",
    ]
    prune_checkpoints(tmp_path, keep=5)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-1000000"
