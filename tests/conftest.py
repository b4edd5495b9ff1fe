"""What tests of several rooms share."""

import pytest
import torch

from common.config.recipe import Recipe

TINY_RECIPE = {
    "image_size": 32,
    "source": {"kind": "mnist"},
    "tokenizer": {
        "size": {
            "channels": 32,
            "channel_multipliers": [1, 1, 1],
            "num_res_blocks": 1,
            "z_channels": 8,
            "codebook_size": 20,
            "codebook_dim": 4,
        },
        "checkpoint": "tokenizer.safetensors",
    },
    "policy": {
        "size": {"num_layers": 2, "num_heads": 2, "dim": 16, "ffn_multiple": 8},
        "num_classes": 10,
        "checkpoint": "policy.safetensors",
    },
    "perceptual": {"family": "shift_tolerant_lpips"},
    "context": {"noise": 0.5},
    "group": {"size": 4},
    "actors": {"images_per_ticket": 2},
    "learner": {"num_steps": 2, "images_per_step": 4, "micro_batch_size": 2, "lr": 1e-3},
    "metrics": {"port": 0},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The number of threads is part of the arithmetic, and idle ones slow the small models down."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_recipe() -> Recipe:
    """8 x 8 tokens of 20 codes on 32 px digits, groups of 4, models of a few thousand parameters."""
    return Recipe.model_validate(TINY_RECIPE)
