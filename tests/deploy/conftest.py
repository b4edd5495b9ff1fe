"""A recipe that every command accepts: small random weights, and a folder of small pictures."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """Commands set the project's logging up for their process; here it goes back to what it was."""
    log = logging.getLogger("vapi")
    level, propagate, handlers = log.level, log.propagate, log.handlers[:]
    yield
    log.setLevel(level)
    log.propagate, log.handlers[:] = propagate, handlers


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of noise in three class folders."""
    folder = tmp_path / "pictures"
    draws = np.random.default_rng(0)
    for label in "abc":
        (folder / label).mkdir(parents=True)
        for index in range(4):
            pixels = draws.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture
def recipe(tiny_recipe: Recipe, tiny_weights: Path, pictures: Path, tmp_path: Path) -> Recipe:
    return with_changes(
        tiny_recipe,
        {
            "run.dir": str(tmp_path / "runs"),
            "run.name": "try",
            "source": {"kind": "image_folder", "path": str(pictures), "held_out_fraction": 0.25},
            "tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors"),
            "policy.checkpoint": str(tiny_weights / "policy.safetensors"),
            "reward.lpips": 0,
        },
    )


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> str:
    """The path of a file of the recipe, for the command line."""
    path = tmp_path / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    return str(path)
