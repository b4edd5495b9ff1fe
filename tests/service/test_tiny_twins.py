"""The shipped recipes of the paper's runs, each by its tiny twin: the same code path, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.config.load import load_recipe
from deploy.__main__ import main

RECIPES = Path(__file__).parents[2] / "deploy" / "recipes"


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for index in range(16):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(256, size=(70, 80, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.parametrize("name", ["llamagen_xl_c2i", "llamagen_xxl_c2i"])
def test_a_class_conditional_twin_trains_and_samples(
    name: str, two_classes: Path, tmp_path: Path, no_ray: None
) -> None:
    recipe = str(RECIPES / f"{name}_tiny.yaml")
    changes = [f"source.path={two_classes}", f"run.dir={tmp_path}", "ray.object_store_bytes=80000000"]
    assert main(["train", recipe, *changes]) == 0
    run = tmp_path / f"{name}-tiny".replace("_", "-")
    assert summary_of(run)["groups_learned"] == 24
    pictures = tmp_path / "samples"
    checkpoint = run / "checkpoints" / "step-000003"
    sampling = ["--checkpoint", str(checkpoint), "--num", "4", "--out", str(pictures)]
    assert main(["sample", recipe, *changes, *sampling]) == 0
    assert Image.open(pictures / "000003.png").size == (64, 64)


@pytest.mark.parametrize("name", ["llamagen_xl_c2i", "llamagen_xxl_c2i", "llamagen_xl_t2i"])
def test_a_twin_has_the_settings_of_its_recipe(name: str) -> None:
    """But sizes, paths and hardware."""
    recipe, twin = (load_recipe(RECIPES / f"{name}{suffix}.yaml", []) for suffix in ("", "_tiny"))
    for section in ("context", "group", "buffer"):
        assert getattr(recipe, section).model_dump(exclude={"max_bytes"}) == getattr(twin, section).model_dump(
            exclude={"max_bytes"}
        )
    assert recipe.profile == twin.profile
    assert recipe.source.kind == twin.source.kind
    assert recipe.policy.conditioning == twin.policy.conditioning
    for key in ("lr", "betas", "weight_decay", "max_grad_norm", "clip_range", "advantage_clip", "ce_weight"):
        assert getattr(recipe.learner, key) == getattr(twin.learner, key), key
