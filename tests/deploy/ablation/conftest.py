"""A miniature study: two steps of the tiny recipe, two variants, two seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights

VARIANTS = {"all": {}, "prior alone": {"reward.mse": 0, "learner.ce_weight": 1}}


@pytest.fixture
def study_file(recipe: Recipe, tmp_path: Path) -> Callable[..., str]:
    """Writes a study file with the given keys set otherwise, and returns its path."""
    torch.manual_seed(0)
    save_weights(ImageClassifier(10).state_dict(), tmp_path / "classifier.safetensors")
    section = {"classifier": str(tmp_path / "classifier.safetensors"), "num_samples": 24, "num_held_out": 3}
    write_json(tmp_path / "r.json", with_changes(recipe, {"evaluation": section}).model_dump(mode="json"))

    def make(**keys: Any) -> str:
        study = {
            "name": "mini",
            "question": "What does the reward add?",
            "recipe": str(tmp_path / "r.json"),
            "variants": VARIANTS,
            "seeds": [0, 7],
            "scores": ["held_out_reward", "fd"],
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study | keys, sort_keys=False))
        return str(path)

    return make
