"""Converts weights between kinds of files: every key and shape is checked; complete or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from common.config.recipe import Recipe
from common.errors import CheckpointError, UserError
from common.models.adapter_files import adapters_at, read_adapters, read_base
from common.models.weights_files import (
    SUFFIXES,
    completed,
    read_weights,
    save_published,
    save_weights,
    shapes_of,
)
from deploy.weights.recognition import What, recognise
from deploy.weights.whole_conversion import is_whole, target_layout, whole, write

_WHOLE = ".safetensors"  # the kind of file without layouts


@dataclass(frozen=True)
class Converted:
    """The result of a conversion."""

    model: str  # its name
    num_tensors: int
    num_numbers: int  # in all tensors
    left_out: tuple[str, ...]  # keys of the source that the model does not need, or parts that the file lacks
    filled: tuple[str, ...]  # keys that the source may lack, written as zeros
    dtypes: tuple[str, ...]
    num_bytes: int  # of the file


def convert(
    source: str | Path,
    target: Path,
    *,
    layout: str | None = None,
    dtype: str = "keep",
    recipe: Recipe | None = None,
    what: What | None = None,
    original: str | Path | None = None,
    shard_gb: float = 5.0,
    overwrite: bool = False,
) -> Converted:
    """Write the weights in `source` to `target`, whose suffix sets the kind of file. Raises UserError.

    Adapters are merged into their base: that of `recipe`, or the one that they name.
    `layout` is only for .pt files, "model" if None; `dtype` is the name of a dtype, or "keep". For files that hold
    a generator and its tokenizer: `original` has what `source` lacks, and `shard_gb` is the most of a shard.
    """
    _check_exists(target, overwrite)
    stored = _stored(source, recipe, keep_dtype=dtype == "keep")
    if original is not None or is_whole(stored):
        return _convert_whole(stored, source, target, layout, dtype, recipe, original, shard_gb)
    _check_target(target, layout)
    name, model = recognise(shapes_of(stored), source, recipe, what)
    weights = completed(stored, model)
    if dtype != "keep":
        weights = {key: _cast(key, tensor, dtype) for key, tensor in weights.items()}
    _write(weights, target, layout or "model")
    left_out = tuple(key for key in stored if key not in weights)
    filled = tuple(key for key in weights if key not in stored)
    return _converted(name, weights, left_out, filled, target.stat().st_size)


def _convert_whole(
    stored: Mapping[str, Tensor],
    source: str | Path,
    target: Path,
    layout: str | None,
    dtype: str,
    recipe: Recipe | None,
    original: str | Path | None,
    shard_gb: float,
) -> Converted:
    to = target_layout(target, layout)
    completing = read_weights(original, noun="weights", setting="--original") if original is not None else None
    made = whole(stored, completing, to, source, recipe)
    if dtype != "keep":
        weights = {key: _cast(key, tensor, dtype) for key, tensor in made.weights.items()}
        made = replace(made, weights=weights)
    with _as_user_errors(target):
        num_bytes = write(made, target, int(shard_gb * 1e9))
    return _converted(made.model, made.weights, made.lacking, (), num_bytes)


def _converted(
    name: str, weights: Mapping[str, Tensor], left_out: tuple[str, ...], filled: tuple[str, ...], num_bytes: int
) -> Converted:
    return Converted(
        model=name,
        num_tensors=len(weights),
        num_numbers=sum(tensor.numel() for tensor in weights.values()),
        left_out=left_out,
        filled=filled,
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})),
        num_bytes=num_bytes,
    )


def _stored(source: str | Path, recipe: Recipe | None, *, keep_dtype: bool) -> dict[str, Tensor]:
    """The tensors of a file, or of a base with adapters merged into it."""
    path = adapters_at(source, "SOURCE")
    if path is None:
        return read_weights(source, noun="weights", setting="SOURCE")
    adapters = read_adapters(path)
    checkpoint = recipe.policy.checkpoint if recipe else adapters.base.checkpoint
    if not checkpoint:
        raise UserError(
            f"The adapters {path} do not say which weights they belong to: name their recipe by --recipe"
        )
    base = read_base(checkpoint)
    adapters.require_base(base, checkpoint)
    return adapters.merged_into(base, keep_dtype=keep_dtype)


def _check_exists(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UserError(f"TARGET {target} is a folder: name a file")
    if target.exists() and not overwrite:
        raise UserError(f"TARGET {target} exists: name another, or replace it by --overwrite")


def _check_target(target: Path, layout: str | None) -> None:
    if target.suffix not in SUFFIXES:
        raise UserError(f"TARGET is {target}: name it .safetensors, .pt or .pth, which says what to write")
    if layout is not None and target.suffix == _WHOLE:
        raise UserError(
            f"--layout is {layout}, but {target.name} has no layouts: leave it out, or name TARGET .pt"
        )


def _cast(key: str, tensor: Tensor, dtype: str) -> Tensor:
    """The tensor in another dtype, which must be able to hold its numbers."""
    cast = tensor.to(getattr(torch, dtype))
    if tensor.isfinite().all() and not cast.isfinite().all():
        raise CheckpointError(
            f"--dtype is {dtype}, which ends at {torch.finfo(cast.dtype).max:g}, but {key} reaches "
            f"{tensor.abs().max():g}: choose bfloat16 or float32"
        )
    return cast


def _write(weights: Mapping[str, Tensor], target: Path, layout: str) -> None:
    with _as_user_errors(target):
        if target.suffix == _WHOLE:
            save_weights(weights, target)
        else:
            save_published(weights, target, layout)


@contextmanager
def _as_user_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch has its own error for a full disk
        reason = str(error).splitlines()[0]
        raise UserError(
            f"TARGET {target} cannot be written ({reason}): make room there, or name another"
        ) from error
