"""A recipe whose models do not exist yet, with a few steps of pretraining."""

from pathlib import Path

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe

STAGE = {"num_steps": 3, "batch_size": 2, "lr": 1e-3}


@pytest.fixture
def from_scratch(recipe: Recipe, tmp_path: Path) -> Recipe:
    own = tmp_path / "weights"
    return with_changes(
        recipe,
        {
            "tokenizer.checkpoint": str(own / "tokenizer.safetensors"),
            "policy.checkpoint": str(own / "policy.safetensors"),
            "evaluation.classifier": str(own / "classifier.safetensors"),
            "perceptual": {"family": "shift_tolerant_lpips"},
            "pretrain": {"tokenizer": STAGE, "policy": STAGE, "classifier": STAGE, "checkpoint_every": 2},
        },
    )


def clip_stage(tmp_path: Path) -> dict[str, object]:
    """Changes to a recipe that have it train a CLIP."""
    (tmp_path / "merges.txt").write_text("a b\nab c\n")
    return {
        "pretrain.clip": STAGE,
        "reward_models.clip": str(tmp_path / "weights" / "clip.safetensors"),
        "reward_models.vocabulary": str(tmp_path / "merges.txt"),
        "reward_models.activation": "gelu",
    }
