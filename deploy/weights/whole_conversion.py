"""Converts files that hold a generator, its tokenizer and parts that generation does not need: Janus-Pro's.

Names are translated between the two published layouts. What generation does not need exists in each layout in a
form of its own, so it is taken from a file of TARGET's layout: SOURCE itself, or the one named by `--original`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.atomic import write_json
from common.config.recipe import Recipe
from common.errors import CheckpointError, UserError
from common.models.families import build_policy, build_tokenizer
from common.models.janus.published_files import (
    NOT_NEEDED,
    POLICY,
    TOKENIZER,
    Layout,
    layout_of,
    own_name,
    published_name,
)
from common.models.specs import PUBLISHED_WHOLE
from common.models.weights_files import Misfit, misfit, save_published, save_weights, shapes_of

_ENDINGS: dict[str, Layout] = {".bin": "deepseek", ".safetensors": "transformers"}
_INDEX = ".index.json"
_ONLY_DEEPSEEK = f"{TOKENIZER}quantize.codebook_used"  # an unused statistic
_GRID_SIZE, _IMAGE_SIZE = 24, 384  # arbitrary: the tensors' shapes do not depend on them


@dataclass(frozen=True)
class Whole:
    """The result: what to write, and where it comes from."""

    model: str  # its name
    weights: dict[str, Tensor]  # under TARGET's names
    lacking: tuple[str, ...]  # parts that TARGET does not have, by their prefixes
    layout: Layout


def is_whole(stored: Mapping[str, object]) -> bool:
    """Whether a file holds a generator and its tokenizer. CheckpointError if it mixes layouts."""
    layout = _layout_of(stored, "SOURCE")
    return layout is not None and any(own_name(name, layout).startswith(TOKENIZER) for name in stored)


def target_layout(target: Path, layout: str | None) -> Layout:
    """The layout named, or that of TARGET's ending. UserError where the two do not go together."""
    ending = target.name.removesuffix(_INDEX)
    by_ending = next((known for suffix, known in _ENDINGS.items() if ending.endswith(suffix)), None)
    if by_ending is None or layout not in (None, by_ending):
        endings = ", ".join(f"{suffix} or {suffix}{_INDEX} ({known})" for suffix, known in _ENDINGS.items())
        raise UserError(
            f"TARGET is {target}{f' and --layout {layout}' if layout else ''}, but SOURCE holds a generator and "
            f"its tokenizer: name TARGET {endings}"
        )
    return by_ending


def whole(
    stored: Mapping[str, Tensor],
    original: Mapping[str, Tensor] | None,
    target: Layout,
    source: str | Path,
    recipe: Recipe | None,
) -> Whole:
    """The tensors of `stored`, completed by `original`, in the layout `target`. Raises CheckpointError."""
    layout = _layout_of(stored, str(source))
    if layout is None:
        raise CheckpointError(f"The weights {source} are none of Janus-Pro, and --original is for those alone")
    kept = _not_needed(stored, layout) if layout == target else {}
    own = _needed(stored, layout)
    if original is not None:
        theirs = _layout_of(original, "--original")
        if theirs != target:
            raise CheckpointError(
                f"--original is in the layout {theirs or 'of another model'}, and TARGET is to be {target}: name "
                "the published file of that layout"
            )
        kept = _not_needed(original, target) | kept
        of_tokenizer = {n: each for n, each in _needed(original, target).items() if n.startswith(TOKENIZER)}
        own = own if any(name.startswith(TOKENIZER) for name in own) else of_tokenizer | own
        if target == "deepseek" and _ONLY_DEEPSEEK in of_tokenizer:
            own.setdefault(_ONLY_DEEPSEEK, of_tokenizer[_ONLY_DEEPSEEK])
    name = _recognised(own, source, recipe)
    if target == "transformers":
        own.pop(_ONLY_DEEPSEEK, None)
    weights = {published_name(each, target): tensor for each, tensor in own.items()} | kept
    there = {own_name(each, target) for each in kept}
    # transformers ties the output of text to its input, and may leave it out
    parts = [part for part in NOT_NEEDED if target == "deepseek" or "lm_head" not in part]
    lacking = tuple(part for part in parts if not any(each.startswith(part) for each in there))
    return Whole(name, weights, lacking, target)


def write(whole: Whole, target: Path, shard_bytes: int) -> int:
    """One file, or shards beside the index that TARGET names; the bytes of all. The index is written last."""
    if not target.name.endswith(_INDEX):
        _write_file(whole.weights, target, whole.layout)
        return target.stat().st_size
    stem, suffix = target.name.removesuffix(_INDEX).rsplit(".", 1)
    shards = list(_shards(whole.weights, shard_bytes))
    places: dict[str, str] = {}
    num_bytes = 0
    for number, shard in enumerate(shards, start=1):
        path = target.with_name(f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}")
        _write_file(shard, path, whole.layout)
        places |= dict.fromkeys(shard, path.name)
        num_bytes += path.stat().st_size
    total = sum(tensor.nbytes for tensor in whole.weights.values())
    write_json(target, {"metadata": {"total_size": total}, "weight_map": places})
    return num_bytes


def _write_file(weights: Mapping[str, Tensor], path: Path, layout: Layout) -> None:
    if layout == "transformers":
        save_weights(weights, path, metadata={"format": "pt"})  # without it transformers reads no file
    else:
        save_published(weights, path, "bare")


def _shards(weights: Mapping[str, Tensor], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    """In order, each of at most `shard_bytes` unless a single tensor has more."""
    shard: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if shard and sum(each.nbytes for each in shard.values()) + tensor.nbytes > shard_bytes:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _layout_of(names: Mapping[str, object], file: str) -> Layout | None:
    try:
        return layout_of(names)
    except ValueError as error:
        raise CheckpointError(f"The weights {file} {error}: get them anew") from None


def _needed(stored: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Under our names; with names of no part, which are refused later."""
    own = {own_name(name, layout): tensor for name, tensor in stored.items()}
    return {name: tensor for name, tensor in own.items() if not name.startswith(NOT_NEEDED)}


def _not_needed(stored: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Under the layout's own names, also where all of them had lost `model.`."""
    found = {}
    for name, tensor in stored.items():
        if own_name(name, layout).startswith(NOT_NEEDED):
            is_short = layout == "transformers" and not name.startswith(("model.", "lm_head."))
            found[f"model.{name}" if is_short else name] = tensor
    return found


def _recognised(own: Mapping[str, Tensor], source: str | Path, recipe: Recipe | None) -> str:
    """The model's name. CheckpointError, with the nearest model and what differs, where none fits."""
    policy = {name: tensor for name, tensor in own.items() if not name.startswith(TOKENIZER)}
    tokenizer = {n.removeprefix(TOKENIZER): each for n, each in own.items() if not n.startswith(POLICY)}
    tokenizer = {n: each for n, each in tokenizer.items() if n not in policy}
    differing: list[tuple[int, str, list[Misfit]]] = []
    for name, policy_spec, tokenizer_spec in _candidates(recipe):
        with torch.device("meta"):
            built = (
                build_policy(policy_spec, codebook_size=tokenizer_spec.codebook_size, grid_size=_GRID_SIZE),
                build_tokenizer(tokenizer_spec, image_size=_IMAGE_SIZE),
            )
        found = [misfit(model, shapes_of(part)) for model, part in zip(built, (policy, tokenizer), strict=True)]
        if not any(found):
            return name
        differing.append((sum(map(len, found)), name, found))
    _, nearest, found = min(differing, key=lambda each: each[0])
    said = "; ".join(str(each) for each in found if each)
    raise CheckpointError(
        f"The weights {source} do not fit {nearest} ({said}): replace them with a whole file of it, or name the "
        "recipe of a model of your own by --recipe."
    )


def _candidates(recipe: Recipe | None) -> Iterator[tuple[str, Any, Any]]:
    if recipe is not None:
        yield "the recipe's policy and tokenizer", recipe.policy, recipe.tokenizer
        return
    for models in PUBLISHED_WHOLE:
        yield from models()
