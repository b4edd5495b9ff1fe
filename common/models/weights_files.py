"""Weights files: the published `.pt` layouts, safetensors, and the checkpoint folders of our runs.

Reading is strict. An extra or missing key means a different model than the recipe's, and a half-random model still
draws pictures; so only the keys listed here may be extra or missing.
"""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.atomic import replacing
from common.errors import CheckpointError
from common.hub import how_to_get, located

LAYOUTS = ("model", "module", "state_dict", "bare")  # where a published .pt file keeps its state dict
SUFFIXES = (".safetensors", ".pt", ".pth")
_POLICY_FILE = "policy.safetensors"  # in a checkpoint folder of a run
_NESTED_UNDER = LAYOUTS[:-1]
_MAY_BE_EXTRA = {"freqs_cis"}  # a table in older LlamaGen files; computed here
_MAY_BE_MISSING = {"quantize.codebook_used"}  # an unused usage statistic
_NUM_NAMED = 3  # keys named in a message


@dataclass(frozen=True)
class _WeightsFile:
    """An existing weights file, and its description in messages."""

    path: Path
    noun: str  # its contents, such as "policy weights"
    setting: str  # the key to change to use another file, such as "policy.checkpoint"


@dataclass(frozen=True)
class Misfit:
    """The differences between a file and a model; false if there are none."""

    missing: tuple[str, ...]  # keys
    unexpected: tuple[str, ...]  # keys
    reshaped: tuple[str, ...]  # one sentence each

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing keys": self.missing, "unexpected keys": self.unexpected, "wrong shapes": self.reshaped}
        return "; ".join(f"{kind}: {len(found)} ({_some(found)})" for kind, found in kinds.items() if found)


def load_weights(module: nn.Module, path: str | Path, *, what: str, obtain_from: str = "") -> None:
    """Fill every parameter and buffer of `module` from a file, cast to the module's dtypes.

    `path` may be an hf:// address; `what` is the recipe section that names it, such as "policy"; `obtain_from` is
    how to get a missing file. A module on the meta device gets memory on the CPU. Raises CheckpointError.
    """
    file = _of_recipe(path, what, obtain_from)
    stored = _read(file)
    _check_fit(module, shapes_of(stored), file, what)
    weights = completed(stored, module)
    own = module.state_dict()
    on_meta = any(tensor.is_meta for tensor in own.values())
    if on_meta:  # assigned, not copied into: so cast here, and copy out of the memory-mapped file
        weights = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in weights.items()}
    module.load_state_dict(weights, assign=on_meta)


def check_weights(module: nn.Module, path: str | Path, *, what: str, obtain_from: str = "") -> None:
    """Raise the CheckpointError that `load_weights` would raise, without reading the weights.

    `module` may be on the meta device and is not changed.
    """
    file = _of_recipe(path, what, obtain_from)
    _check_fit(module, _read_shapes(file), file, what)


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file, complete or not at all; `dtype` casts floating-point tensors."""
    with replacing(Path(path)) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(_to_store(state_dict, dtype), partial)
        partial.chmod(mode)  # safetensors makes files that only their owner can read


def save_published(state_dict: Mapping[str, Tensor], path: str | Path, layout: str) -> None:
    """Write a `.pt` file in one of LAYOUTS, complete or not at all."""
    tensors = _to_store(state_dict)
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        torch.save(tensors if layout == "bare" else {layout: tensors}, file)


def read_weights(path: str | Path, *, noun: str, setting: str) -> dict[str, Tensor]:
    """All tensors of a weights file or a checkpoint folder of a run, as stored. Raises CheckpointError.

    `noun` and `setting` describe, in messages, the file and the key to change to use another.
    """
    return _read(_find(path, noun, setting))


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def misfit(module: nn.Module, stored: Mapping[str, tuple[int, ...]]) -> Misfit:
    """The differences between a file with `stored` shapes and `module`, which may be on the meta device."""
    needed = shapes_of(module.state_dict())
    return Misfit(
        missing=tuple(name for name in needed if name not in stored and name not in _MAY_BE_MISSING),
        unexpected=tuple(name for name in stored if name not in needed and name not in _MAY_BE_EXTRA),
        reshaped=tuple(
            f"{name} is {list(stored[name])} and must be {list(shape)}"
            for name, shape in needed.items()
            if name in stored and stored[name] != shape
        ),
    )


def completed(stored: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a fitting file, under exactly the model's keys and in their order."""
    needed = shapes_of(module.state_dict())
    return {name: stored[name] if name in stored else torch.zeros(shape) for name, shape in needed.items()}


def _of_recipe(path: str | Path, what: str, obtain_from: str) -> _WeightsFile:
    setting = what if "." in what else f"{what}.checkpoint"  # evaluation.classifier is itself a key
    return _find(path, f"{what} weights", setting, obtain_from)


def _find(path: str | Path, noun: str, setting: str, obtain_from: str = "") -> _WeightsFile:
    path = located(path, setting)
    if path.is_dir():
        if not (path / _POLICY_FILE).is_file():
            raise CheckpointError(
                f"The folder {path} holds no {_POLICY_FILE}, so it is no checkpoint of a run: point "
                f"{setting} at a weights file, or a folder such as runs/NAME/checkpoints/step-000100."
            )
        return _WeightsFile(path / _POLICY_FILE, noun, setting)
    if not path.is_file():
        obtain = how_to_get(obtain_from, path, setting)
        obtain += "or " if obtain else ""
        raise CheckpointError(f"There is no {noun} file {path}: {obtain}point {setting} at a file that exists.")
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f"The {noun} {path} are not named .safetensors, .pt or .pth: point {setting} at such a file."
        )
    return _WeightsFile(path, noun, setting)


def _read(file: _WeightsFile) -> dict[str, Tensor]:
    if file.path.suffix != ".safetensors":
        return _read_pickle(file)
    try:
        with safe_open(file.path, framework="pt", device="cpu") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _to_store(state_dict: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Tensors on the CPU that share no memory: a view would be stored with its whole base tensor."""
    tensors, taken = {}, set()
    for name, tensor in state_dict.items():
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensor = tensor.detach().to("cpu", cast).contiguous()
        memory = tensor.untyped_storage()
        is_shared = memory.data_ptr() in taken or memory.nbytes() > tensor.nbytes
        tensors[name] = tensor.clone() if is_shared else tensor
        taken.add(memory.data_ptr())
    return tensors


def _read_shapes(file: _WeightsFile) -> dict[str, tuple[int, ...]]:
    if file.path.suffix != ".safetensors":
        return shapes_of(_read_pickle(file))
    try:
        with safe_open(file.path, framework="pt", device="cpu") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _read_pickle(file: _WeightsFile) -> dict[str, Tensor]:
    """The state dict of a `.pt` file, memory-mapped if the format (a zip since torch 1.6) allows it."""
    path = file.path
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training files contain their arguments
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise _unreadable(file, error) from error
    state_dict = _state_dict(content)
    if state_dict is None:
        seen = f"the keys {_some(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"The {file.noun} {path} hold {seen} and no state dict: point {file.setting} at a file of "
            f"tensors by name, bare or under one of {', '.join(_NESTED_UNDER)}."
        )
    return state_dict


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    for candidate in (*(content.get(key) for key in _NESTED_UNDER), content):
        if isinstance(candidate, Mapping) and candidate:
            tensors = {name: value for name, value in candidate.items() if isinstance(value, Tensor)}
            if len(tensors) == len(candidate):
                return tensors
    return None


def _check_fit(module: nn.Module, stored: Mapping[str, tuple[int, ...]], file: _WeightsFile, what: str) -> None:
    found = misfit(module, stored)
    if found:
        raise CheckpointError(
            f"The {file.noun} {file.path} do not fit the model that the recipe describes, which has "
            f"{len(module.state_dict())} tensors ({found}): make the settings under {what} those of the file, "
            f"or point {file.setting} at another."
        )


def _unreadable(file: _WeightsFile, error: Exception) -> CheckpointError:
    if isinstance(error, pickle.UnpicklingError):  # torch's own message explains at length how to turn safety off
        reason = "it is damaged, or holds Python objects other than tensors"
    else:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(": ")
    return CheckpointError(
        f"The {file.noun} {file.path} ({file.path.stat().st_size} bytes) cannot be read ({reason}): replace it "
        f"with a complete copy, or point {file.setting} at another file."
    )


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_NUM_NAMED]) + (", …" if len(names) > _NUM_NAMED else "")
