"""Weights files: the published `.pt` layouts, safetensors, and the checkpoint folders of our runs.

Loading is strict. A key too many or too few means another model than the recipe says, and a model that is
half random still draws pictures; so nothing is skipped but what is listed here.
"""

import argparse
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import CheckpointError

_POLICY_FILE = "policy.safetensors"  # in a checkpoint folder of a run
_NESTED_UNDER = ("model", "module", "state_dict")
_MAY_BE_EXTRA = {"freqs_cis"}  # a table of older LlamaGen files; computed here
_MAY_BE_MISSING = {"quantize.codebook_used"}  # a usage statistic that nothing reads
_NUM_NAMED = 3  # keys that a message names


def load_weights(module: nn.Module, path: str | Path, *, what: str, source: str = "") -> None:
    """Fill every parameter and buffer of `module` from a file, cast to the module's dtypes.

    `what` is the recipe section that names the file, such as "policy"; `source` says where the file can be
    had. A module on the meta device is given memory on the CPU. Raises CheckpointError.
    """
    file = _find(path, what, source)
    stored = _read(file, what)
    _check_fit(module, {name: tuple(tensor.shape) for name, tensor in stored.items()}, file, what)
    own = module.state_dict()
    weights = {name: stored[name] if name in stored else torch.zeros(tensor.shape) for name, tensor in own.items()}
    on_meta = any(tensor.is_meta for tensor in own.values())
    if on_meta:  # assigned, not copied into: cast here, and away from the file that they are mapped from
        weights = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in weights.items()}
    module.load_state_dict(weights, assign=on_meta)


def check_weights(module: nn.Module, path: str | Path, *, what: str, source: str = "") -> None:
    """Raise the CheckpointError that `load_weights` would raise, without reading the numbers.

    `module` may be on the meta device and is left as it is.
    """
    file = _find(path, what, source)
    _check_fit(module, _read_shapes(file, what), file, what)


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write safetensors, complete or not at all; `dtype` casts floating-point tensors."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in state_dict.items():
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", cast).contiguous()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _find(path: str | Path, what: str, source: str) -> Path:
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / _POLICY_FILE).is_file():
            raise CheckpointError(
                f"The folder {path} holds no {_POLICY_FILE}, so it is no checkpoint of a run: point "
                f"{what}.checkpoint at a weights file, or a folder such as runs/NAME/checkpoints/step-000100."
            )
        return path / _POLICY_FILE
    if not path.is_file():
        obtain = f"get it from {source}, or " if source else ""
        raise CheckpointError(
            f"There is no {what} weights file {path}: {obtain}point {what}.checkpoint at a file that exists."
        )
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise CheckpointError(
            f"The {what} weights {path} are not named .safetensors, .pt or .pth: point {what}.checkpoint at "
            f"such a file."
        )
    return path


def _read(file: Path, what: str) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        return _read_pickle(file, what)
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, what, error) from error


def _read_shapes(file: Path, what: str) -> dict[str, tuple[int, ...]]:
    if file.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _read_pickle(file, what).items()}
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, what, error) from error


def _read_pickle(file: Path, what: str) -> dict[str, Tensor]:
    """The state dict of a `.pt` file, mapped from disk where the format (a zip since torch 1.6) allows."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training files keep their arguments
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # a damaged pickle can raise anything at all
        raise _unreadable(file, what, error) from error
    state_dict = _state_dict(content)
    if state_dict is None:
        seen = f"the keys {_some(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"The {what} weights {file} hold {seen} and no state dict: point {what}.checkpoint at a file of "
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


def _check_fit(module: nn.Module, stored: Mapping[str, tuple[int, ...]], file: Path, what: str) -> None:
    needed = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in needed if name not in stored and name not in _MAY_BE_MISSING]
    extra = [name for name in stored if name not in needed and name not in _MAY_BE_EXTRA]
    reshaped = [
        f"{name} is {list(stored[name])} and must be {list(shape)}"
        for name, shape in needed.items()
        if name in stored and stored[name] != shape
    ]
    kinds = {"missing keys": missing, "unexpected keys": extra, "wrong shapes": reshaped}
    faults = [f"{kind}: {len(found)} ({_some(found)})" for kind, found in kinds.items() if found]
    if faults:
        raise CheckpointError(
            f"The {what} weights {file} do not fit the model that the recipe describes, which has "
            f"{len(needed)} tensors ({'; '.join(faults)}): make the settings under {what} those of the file, "
            f"or point {what}.checkpoint at another."
        )


def _unreadable(file: Path, what: str, error: Exception) -> CheckpointError:
    if isinstance(error, pickle.UnpicklingError):  # torch's own text is a page about turning safety off
        reason = "it is damaged, or holds Python objects other than tensors"
    else:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(": ")
    return CheckpointError(
        f"The {what} weights {file} ({file.stat().st_size} bytes) cannot be read ({reason}): replace it with "
        f"a complete copy, or point {what}.checkpoint at another file."
    )


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_NUM_NAMED]) + (", …" if len(names) > _NUM_NAMED else "")
