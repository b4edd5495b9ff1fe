"""Reads weights files of every kind: pickles (.pt, .pth, .bin, .ckpt), safetensors, and folders of shards.

Nothing here knows a model: what is read has the file's tensors under plain names.
"""

import argparse
import json
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import CheckpointError
from common.models.state_dicts import NESTED_UNDER, plain_names, state_dict_of
from common.models.torchscript import is_torchscript, read_torchscript

SAFETENSORS = ".safetensors"
READABLE = (SAFETENSORS, ".pt", ".pth", ".bin", ".ckpt")
INDEX = ".index.json"  # names the shard of each tensor
NUM_NAMED = 3  # keys named in a message
_IN_FOLDERS = (  # by whom a folder was made: a run of ours, then transformers and diffusers
    "policy.safetensors",
    "tokenizer.safetensors",
    *(f"{name}{end}" for end in (INDEX, "") for name in ("model.safetensors", "pytorch_model.bin")),
    *(f"diffusion_pytorch_model.{kind}{end}" for end in (INDEX, "") for kind in ("safetensors", "bin")),
)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")

Shape = tuple[int, ...]
Value = TypeVar("Value")


@dataclass(frozen=True)
class WeightsFile:
    """An existing weights file, or index of shards, and its description in messages."""

    path: Path
    noun: str  # its contents, such as "policy weights"
    setting: str  # the key to change to use another file, such as "policy.checkpoint"

    def refused(self, because: str) -> CheckpointError:
        return CheckpointError(f"The {self.noun} {self.path} {because}, or point {self.setting} at another file.")


def file_in(folder: Path) -> Path | None:
    """The weights file of a folder: a checkpoint of a run, or a model of the Hugging Face libraries."""
    return next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)


def is_readable(path: Path) -> bool:
    return path.name.endswith((*READABLE, INDEX))


def lone_shard(path: Path) -> str | None:
    """How many shards a file is one of, by its name; None if it is whole."""
    match = _SHARD.search(path.name)
    return str(int(match[1])) if match and int(match[1]) > 1 else None


def read_tensors(file: WeightsFile) -> dict[str, Tensor]:
    """All tensors, as stored. Raises CheckpointError."""
    return _plain(_each_shard(file, _tensors), file)


def read_shapes(file: WeightsFile) -> dict[str, Shape]:
    """The shapes of all tensors; of safetensors without reading more than the header. Raises CheckpointError."""
    return _plain(_each_shard(file, _shapes), file)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Names and number of the tensors that hold NaN or infinity; empty if there are none."""
    return some([name for name, tensor in tensors.items() if not _is_finite(tensor)])


def some(names: Iterable[Any]) -> str:
    """The number of names, and the first few; empty if there are none."""
    names = list(names)
    return f"{len(names)} ({_named(names)})" if names else ""


def _named(names: Iterable[Any]) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:NUM_NAMED]) + (", …" if len(names) > NUM_NAMED else "")


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())


def _plain(values: dict[str, Value], file: WeightsFile) -> dict[str, Value]:
    names = plain_names(values)
    twice = [name for name, number in Counter(names.values()).items() if number > 1]
    if twice:
        both = " and ".join(stored for stored, plain in names.items() if plain == twice[0])
        raise file.refused(f"name a tensor twice ({both}): keep the names of one model in it")
    return {names[stored]: value for stored, value in values.items()}


def _each_shard(file: WeightsFile, read: Callable[[WeightsFile], dict[str, Value]]) -> dict[str, Value]:
    if not file.path.name.endswith(INDEX):
        return read(file)
    found: dict[str, Value] = {}
    for shard, names in _index(file).items():
        path = file.path.parent / shard
        if not path.is_file():
            raise file.refused(f"name a shard that is not there ({path}): get all shards")
        values = read(replace(file, path=path))
        lacking = [name for name in names if name not in values]
        if lacking:
            raise file.refused(f"say that {path} holds tensors that it lacks, {some(lacking)}: get both anew")
        found |= {name: values[name] for name in names}
    return found


def _index(file: WeightsFile) -> dict[str, list[str]]:
    """The names of each shard's tensors, by the shard's file name."""
    try:
        places = json.loads(file.path.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, list[str]] = {}
        for name, shard in places.items():
            if Path(shard).name != shard or not shard.endswith(READABLE):
                raise ValueError(f"{shard!r} is no weights file beside it")
            shards.setdefault(shard, []).append(name)
        if not shards:
            raise ValueError("it names none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise file.refused(f"are no index of shards, with a weight_map ({reason}): get it anew") from error
    return shards


def _tensors(file: WeightsFile) -> dict[str, Tensor]:
    if file.path.suffix != SAFETENSORS:
        return _unpickled(file)
    try:
        with safe_open(file.path, framework="pt", device="cpu") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _shapes(file: WeightsFile) -> dict[str, Shape]:
    if file.path.suffix != SAFETENSORS:
        return shapes_of(_unpickled(file))
    try:
        with safe_open(file.path, framework="pt", device="cpu") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _unpickled(file: WeightsFile) -> dict[str, Tensor]:
    """The state dict of a pickle, memory-mapped if the format (a zip since torch 1.6) allows it."""
    path = file.path
    try:
        if is_torchscript(path):
            return read_torchscript(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # training files contain their arguments
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise _unreadable(file, error) from error
    state_dict = state_dict_of(content)
    if state_dict is None:
        seen = f"the keys {_named(content)}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"The {file.noun} {path} hold {seen} and no state dict: point {file.setting} at a file of "
            f"tensors by name, bare or under one of {', '.join(NESTED_UNDER)}."
        )
    return state_dict


def _unreadable(file: WeightsFile, error: Exception) -> CheckpointError:
    with file.path.open("rb") as stored:
        start = stored.read(40)
    if start.startswith(b"version https://git-lfs"):
        reason = "it is a pointer of Git LFS and not the file itself"
    elif isinstance(
        error, pickle.UnpicklingError
    ):  # torch's own message explains at length how to turn safety off
        reason = "it is damaged, or holds Python objects other than tensors"
    else:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(": ")
    return CheckpointError(
        f"The {file.noun} {file.path} ({file.path.stat().st_size} bytes) cannot be read ({reason}): replace it "
        f"with a complete copy, or point {file.setting} at another file."
    )
