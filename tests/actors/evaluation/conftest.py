"""What tests of several kinds of chunk share."""

import pytest
import torch

from common.config.recipe import Recipe
from common.models.families import PolicyModule, build_policy


@pytest.fixture
def policy(tiny_recipe: Recipe) -> PolicyModule:
    """Random weights, drawn wide enough that tokens differ."""
    torch.manual_seed(1)
    policy = build_policy(tiny_recipe.policy, codebook_size=20, grid_size=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()
