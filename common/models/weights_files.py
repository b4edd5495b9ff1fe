"""The doors to weights files: a model filled from one, checked against one, written to one.

Reading is strict. An extra or missing key means a different model than the recipe's, and a half-random model still
draws pictures; so only the keys listed here may be extra or missing.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from common.atomic import replacing
from common.errors import CheckpointError
from common.hub import how_to_get, located
from common.models.janus.published_files import Value, part_of
from common.models.state_dicts import prefixes_of
from common.models.weights_reading import (
    READABLE,
    WeightsFile,
    file_in,
    is_readable,
    lone_shard,
    not_finite,
    read_shapes,
    read_tensors,
    shapes_of,
    some,
)

LAYOUTS = ("model", "module", "state_dict", "bare")  # where a published .pt file keeps its state dict
SUFFIXES = (".safetensors", ".pt", ".pth")
_TORCH_WRITER = ("PytorchStreamWriter", "inline_container")  # in its errors
_MAY_BE_EXTRA = {"freqs_cis"}  # a table in older LlamaGen files; computed here
_MAY_BE_MISSING = {"quantize.codebook_used"}  # an unused usage statistic


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
        return "; ".join(f"{kind}: {some(found)}" for kind, found in kinds.items() if found)


def load_weights(
    module: nn.Module, path: str | Path, *, what: str, obtain_from: str = "", setting: str = ""
) -> None:
    """Fill every parameter and buffer of `module` from a file, cast to the module's dtypes.

    `path` may be an hf:// address; `what` is the recipe section that names it, such as "policy", or `setting` an
    option; `obtain_from` is how to get a missing file. A module on the meta device gets memory on the CPU. Raises
    CheckpointError.
    """
    file = _of_recipe(path, what, obtain_from, setting)
    stored = _part_of(read_tensors(file), module, file)
    _check_fit(module, shapes_of(stored), file, what)
    weights = completed(stored, module)
    own = module.state_dict()
    _check_numbers(weights, own, file)
    on_meta = any(tensor.is_meta for tensor in own.values())
    if on_meta:  # assigned, not copied into: so cast here, and copy out of the memory-mapped file
        weights = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in weights.items()}
    module.load_state_dict(weights, assign=on_meta)


def check_weights(module: nn.Module, path: str | Path, *, what: str, obtain_from: str = "") -> None:
    """Raise the CheckpointError that `load_weights` would raise, without reading the weights.

    `module` may be on the meta device and is not changed.
    """
    file = _of_recipe(path, what, obtain_from)
    _check_fit(module, _part_of(read_shapes(file), module, file), file, what)


def save_weights(
    state_dict: Mapping[str, Tensor],
    path: str | Path,
    dtype: torch.dtype | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file, complete or not at all; `dtype` casts floating-point tensors."""
    with replacing(Path(path)) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        with as_os_errors(path):
            save_file(_to_store(state_dict, dtype), partial, metadata)
        partial.chmod(mode)  # safetensors makes files that only their owner can read


def save_published(state_dict: Mapping[str, Tensor], path: str | Path, layout: str) -> None:
    """Write a `.pt` file in one of LAYOUTS, complete or not at all."""
    tensors = _to_store(state_dict)
    with replacing(Path(path)) as partial, as_os_errors(path), partial.open("wb") as file:
        torch.save(tensors if layout == "bare" else {layout: tensors}, file)


@contextmanager
def as_os_errors(path: str | Path) -> Iterator[None]:
    """Of a disk that takes no more, safetensors and torch speak in errors of their own."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        known = re.search(r"\(os error (\d+)\)|code: (\d+)", str(error))
        if known is None and not any(word in str(error) for word in _TORCH_WRITER):
            raise
        number = int(known[1] or known[2]) if known else errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from error


def read_weights(path: str | Path, *, noun: str, setting: str) -> dict[str, Tensor]:
    """All tensors of a weights file or a checkpoint folder of a run, as stored. Raises CheckpointError.

    `noun` and `setting` describe, in messages, the file and the key to change to use another.
    """
    return read_tensors(find_weights(path, noun, setting))


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


def _of_recipe(path: str | Path, what: str, obtain_from: str, setting: str = "") -> WeightsFile:
    setting = setting or (what if "." in what else f"{what}.checkpoint")  # evaluation.classifier is itself a key
    return find_weights(path, f"{what} weights", setting, obtain_from)


def find_weights(
    path: str | Path, noun: str, setting: str, obtain_from: str = "", wanted: str = "a file that exists"
) -> WeightsFile:
    """An existing file, or index of shards, of a kind that can be read.

    Raises CheckpointError; its message says how to obtain the file, if that is known, or what is wanted.
    """
    path = located(path, setting)
    if path.is_dir():
        found = file_in(path)
        if found is None and (path / "adapter_model.safetensors").is_file():
            raise CheckpointError(
                f"The folder {path} holds adapters alone: merge them into their base by `convert {path} FILE`, "
                f"and point {setting} at FILE."
            )
        if found is None:
            raise CheckpointError(
                f"The folder {path} holds no policy.safetensors or tokenizer.safetensors, so it is no checkpoint "
                "of a run, nor a model of transformers or diffusers: point "
                f"{setting} at a weights file, or a folder such as runs/NAME/checkpoints/step-000100."
            )
        path = found
    if not path.is_file():
        obtain = how_to_get(obtain_from, path, setting)
        obtain += "or " if obtain else ""
        raise CheckpointError(f"There is no {noun} file {path}: {obtain}point {setting} at {wanted}.")
    if not is_readable(path):
        raise CheckpointError(
            f"The {noun} {path} are not named {', '.join(READABLE)}: point {setting} at such a file."
        )
    number = lone_shard(path)
    if number is not None:
        raise CheckpointError(
            f"The {noun} {path} are one of {number} shards: point {setting} at the folder of all of them, or at "
            "its .index.json."
        )
    return WeightsFile(path, noun, setting)


def _part_of(stored: Mapping[str, Value], module: nn.Module, file: WeightsFile) -> Mapping[str, Value]:
    """What the module needs of a file that holds a generator and its tokenizer."""
    try:
        return part_of(stored, module.state_dict())
    except ValueError as error:
        raise file.refused(f"{error}: get it anew") from None


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


def _check_fit(module: nn.Module, stored: Mapping[str, tuple[int, ...]], file: WeightsFile, what: str) -> None:
    found = misfit(module, stored)
    if not found:
        return
    prefixes = prefixes_of(module.state_dict(), stored)
    if prefixes:
        raise file.refused(
            f"hold the model's keys under {' and under '.join(prefixes)}, beside others: keep those of one prefix "
            "alone"
        )
    raise CheckpointError(
        f"The {file.noun} {file.path} do not fit the model that the recipe describes, which has "
        f"{len(module.state_dict())} tensors ({found}): make the settings under {what} those of the file, "
        f"or point {file.setting} at another."
    )


def _check_numbers(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], file: WeightsFile) -> None:
    """Refuse NaN, which draws pictures like other numbers, and quantized weights, which no cast restores."""
    quantized = [
        f"{name} is {tensor.dtype}".replace("torch.", "")
        for name, tensor in weights.items()
        if own[name].is_floating_point() and not tensor.is_floating_point() and tensor.numel()
    ]
    if quantized:
        raise file.refused(f"are quantized, {some(quantized)}: get those in floating point")
    if sick := not_finite(weights):
        raise file.refused(f"hold NaN or infinity in {sick}: get a sound copy")
