"""Resumable state in a folder: complete or absent.

A checkpoint is written under a temporary name, gets its manifest with every file's digest last, and is then
renamed. A folder without a manifest, or with other digests, is not a checkpoint.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from common.atomic import write_json
from common.errors import CheckpointError
from common.models.adapter_files import (
    ADAPTERS,
    CONFIG,
    AdaptersOf,
    Base,
    metadata,
    peft_config,
    read_adapters,
    stored_names,
)
from common.models.weights_reading import not_finite
from common.types import TrainingState, WeightSnapshot
from common.weights.snapshot import as_array, snapshot_of
from learner.checkpoint_names import step_of
from learner.safetensors_file import write_safetensors

log = logging.getLogger("vapi.checkpoint")

POLICY, TOKENIZER = "policy.safetensors", "tokenizer.safetensors"
OPTIMIZER, STATE, MANIFEST = "optimizer.safetensors", "state.json", "manifest.json"


def weights_name(method: str) -> str:
    """The file of what was trained whole: the policy, or the tokenizer where its decoder learns."""
    return TOKENIZER if method == "decoder" else POLICY


def files_of(manifest: Mapping[str, str]) -> tuple[str, ...]:
    """The files that a checkpoint must have, with or without a digest in its manifest; the weights first."""
    kinds = ((ADAPTERS, CONFIG), (TOKENIZER,), (POLICY,))
    weights = next(kind for kind in kinds if kind[0] in manifest or kind[0] == POLICY)
    return (*weights, OPTIMIZER, STATE)


@dataclass(frozen=True)
class CheckpointState:
    """What a resume needs besides weights and optimizer."""

    step: int  # optimizer steps done; also the policy version
    ledger: dict[str, Any]
    groups_learned: int
    images_skipped: int
    recipe: dict[str, Any]

    @property
    def method(self) -> str:
        """Of the learner; checkpoints from before there was a choice have none."""
        return self.recipe.get("learner", {}).get("method", "grpo")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run starts from."""

    path: Path
    state: CheckpointState
    weights: WeightSnapshot
    optimizer: Mapping[str, np.ndarray]
    base: Base | None = None  # of adapters, which the weights then are


def training_state(weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, np.ndarray]) -> TrainingState:
    """Of a CPU's tensors it is their own memory, which the next step changes."""
    narrow = frozenset(name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16)
    return TrainingState({name: as_array(tensor) for name, tensor in weights.items()}, narrow, optimizer)


def write_checkpoint(
    folder: Path, training: TrainingState, state: CheckpointState, adapters: AdaptersOf | None = None
) -> Path:
    """Write `folder`/step-NNNNNN and return its path; an older one of the same step is replaced.

    `adapters` says what the weights are adapters of. Raises OSError, and then leaves everything as it was.
    """
    final = folder / f"step-{state.step:06d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _fill(temporary, training, state, adapters)
        _take_place(temporary, final)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(final)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _fill(folder: Path, training: TrainingState, state: CheckpointState, adapters: AdaptersOf | None) -> None:
    """Write all files, to the disk itself: some file systems say only then that they are full."""
    write_json(folder / STATE, asdict(state))
    digests = {
        **write_weights(folder, training, state.method, adapters),
        OPTIMIZER: write_safetensors(folder / OPTIMIZER, training.optimizer),
        STATE: _digest(folder / STATE),
    }
    write_json(folder / MANIFEST, digests)
    for name in (*digests, MANIFEST):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())


def write_weights(
    folder: Path, training: TrainingState, method: str, adapters: AdaptersOf | None
) -> dict[str, str]:
    """Write what was trained whole, or adapters in the files of peft; the SHA-256 of each file. Raises OSError."""
    if adapters is None:
        name = weights_name(method)
        return {name: write_safetensors(folder / name, training.weights, training.bfloat16_names)}
    write_json(folder / CONFIG, peft_config(adapters.section, training.weights, adapters.base))
    weights, narrow = stored_names(training.weights), stored_names(dict.fromkeys(training.bfloat16_names))
    digest = write_safetensors(folder / ADAPTERS, weights, narrow, metadata(adapters.base))
    return {ADAPTERS: digest, CONFIG: _digest(folder / CONFIG)}


def _take_place(new: Path, place: Path) -> None:
    """Rename `new` to `place`; what is there goes only once that is done."""
    former = place.with_name(f".{place.name}.former.tmp")
    shutil.rmtree(former, ignore_errors=True)
    if place.exists():
        place.rename(former)
    try:
        new.rename(place)
    except OSError:
        if former.exists():
            former.rename(place)
        raise
    shutil.rmtree(former, ignore_errors=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Everything in a checkpoint, with its digests verified. Raises CheckpointError."""
    if not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"{path} is no complete checkpoint: {MANIFEST} is missing; set resume to a folder such as "
            "runs/NAME/checkpoints/step-000100"
        )
    damaged = _damaged_file(path)
    if damaged is not None:
        raise CheckpointError(
            f"{path / damaged} is not the file that the checkpoint's manifest names: resume from another"
        )
    state = _state(json.loads((path / STATE).read_text()))
    (weights, base), optimizer = _weights(path, state.method), load_file(path / OPTIMIZER)
    moments = {name: torch.from_numpy(array) for name, array in optimizer.items()}
    name = ADAPTERS if base else weights_name(state.method)
    for file, tensors in ((name, weights), (OPTIMIZER, moments)):
        if sick := not_finite(tensors):
            raise CheckpointError(f"{path / file} holds NaN or infinity in {sick}: resume from an older one")
    return Checkpoint(path, state, snapshot_of(weights, state.step), optimizer, base)


def _weights(path: Path, method: str) -> tuple[Mapping[str, torch.Tensor], Base | None]:
    """Those of what was trained whole, or adapters and their base."""
    if not (path / ADAPTERS).is_file():
        return load_tensors(path / weights_name(method)), None
    adapters = read_adapters(path / ADAPTERS)
    return adapters.tensors, adapters.base


def _state(stored: Mapping[str, Any]) -> CheckpointState:
    """Older checkpoints also hold the policy version, which equals the step."""
    known = {field.name for field in fields(CheckpointState)}
    return CheckpointState(**{name: value for name, value in stored.items() if name in known})


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in `folder`; damaged ones are passed over with a warning."""
    for path in reversed(_complete(folder)):
        damaged = _damaged_file(path)
        if damaged is None:
            return path
        log.warning("%s is damaged: passing over this checkpoint", path / damaged)
    return None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest complete checkpoints."""
    for path in _complete(folder)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints with a manifest, by increasing step."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if step_of(path.name) >= 0 and (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: step_of(path.name))


def _damaged_file(path: Path) -> str | None:
    """The first file of a checkpoint that does not match its manifest."""
    try:
        digests = json.loads((path / MANIFEST).read_text())
    except ValueError:
        return MANIFEST
    for name in files_of(digests):
        if not (path / name).is_file() or _digest(path / name) != digests.get(name):
            return name
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
