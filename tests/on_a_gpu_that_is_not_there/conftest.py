"""Recipes of the variants, with weights."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lpips
import pytest
import torch

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import build_policy
from common.models.weights_files import save_weights
from tests.conftest import TINY_RECIPE
from tests.on_a_gpu_that_is_not_there.variants import CAPTIONS

Recipes = Callable[..., Recipe]


@pytest.fixture(scope="session")
def caption_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = with_changes(Recipe.model_validate(TINY_RECIPE), CAPTIONS)
    torch.manual_seed(0)
    policy = build_policy(recipe.policy, codebook_size=recipe.tokenizer.codebook_size, grid_size=recipe.grid_size)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("captions") / "policy.safetensors"
    save_weights(policy.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def lpips_trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SqueezeNet with random weights, as torchvision lays them out."""
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # of an argument that lpips gives torchvision
        network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).net
    path = tmp_path_factory.mktemp("trunk") / "squeeze.pth"
    weights = {f"features.{name.split('.', 1)[1]}": value for name, value in network.state_dict().items()}
    torch.save(weights, path)
    return path


@pytest.fixture
def recipe_of(tiny_weights: Path, caption_policy: Path, lpips_trunk: Path) -> Recipes:
    """Makes recipes: recipe_of(changes, device)."""

    def make(changes: Mapping[str, object], device: str = "cpu") -> Recipe:
        has_captions = changes.get("policy.conditioning") == "text"
        own: dict[str, Any] = {
            "actors.images_per_ticket": 4,
            "tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors"),
            "policy.checkpoint": str(caption_policy if has_captions else tiny_weights / "policy.safetensors"),
            "compute.device": device,
        }
        if "perceptual" in changes:
            own["perceptual.trunk"] = str(lpips_trunk)
        return with_changes(Recipe.model_validate(TINY_RECIPE), dict(changes) | own)

    return make
