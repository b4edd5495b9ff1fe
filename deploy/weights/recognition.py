"""Recognises a weights file's model: a published one, or one of a recipe. Every key and shape must agree."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from common.config.recipe import Recipe
from common.errors import CheckpointError
from common.models.families import POLICIES, build_policy, build_tokenizer
from common.models.specs import PUBLISHED
from common.models.weights_files import Misfit, misfit

What = Literal["policy", "tokenizer"]
_CODEBOOK_SIZE = 16384  # of every published model
_GRID_SIZE, _IMAGE_SIZE = 24, 384  # arbitrary: the tensors' shapes do not depend on them


@dataclass(frozen=True)
class Candidate:
    """A model that a file may belong to."""

    name: str
    what: What
    build: Callable[[], nn.Module]


def recognise(
    stored: Mapping[str, tuple[int, ...]], file: str | Path, recipe: Recipe | None = None, what: What | None = None
) -> tuple[str, nn.Module]:
    """Name and model (on the meta device) of the file with the `stored` shapes.

    Looks among the recipe's models, or the published ones without a recipe, restricted to `what`. Raises
    CheckpointError with the nearest model and its differences from the file.
    """
    differing: list[tuple[float, int, str, Misfit]] = []
    for candidate in _published() if recipe is None else _of_recipe(recipe):
        if what not in (None, candidate.what):
            continue
        with torch.device("meta"):
            model = candidate.build()
        found = misfit(model, stored)
        if not found:
            return candidate.name, model
        share = (len(found.missing) + len(found.unexpected)) / len(stored.keys() | model.state_dict().keys())
        differing.append((share, len(found.reshaped), candidate.name, found))
    _, _, nearest, found = min(differing, key=lambda each: each[:2])  # by keys, then by shapes
    if recipe is not None:
        raise CheckpointError(
            f"The weights {file} do not fit {nearest} ({found}): make the recipe's settings those of the file, or "
            "name another recipe."
        )
    raise CheckpointError(
        f"The weights {file} fit no published {what or 'model'}; the nearest is {nearest} ({found}): replace them "
        "with a whole file of it, or name the recipe of a model of your own by --recipe."
    )


def _published() -> Iterator[Candidate]:
    for models in PUBLISHED:
        for name, spec in models():
            section: Any = spec
            if spec.family in POLICIES:
                policy = partial(build_policy, section, codebook_size=_CODEBOOK_SIZE, grid_size=_GRID_SIZE)
                yield Candidate(name, "policy", policy)
            else:
                yield Candidate(name, "tokenizer", partial(build_tokenizer, section, image_size=_IMAGE_SIZE))


def _of_recipe(recipe: Recipe) -> Iterator[Candidate]:
    policy = partial(
        build_policy, recipe.policy, codebook_size=recipe.tokenizer.codebook_size, grid_size=recipe.grid_size
    )
    yield Candidate("the recipe's policy", "policy", policy)
    tokenizer = partial(build_tokenizer, recipe.tokenizer, image_size=recipe.image_size)
    yield Candidate("the recipe's tokenizer", "tokenizer", tokenizer)
