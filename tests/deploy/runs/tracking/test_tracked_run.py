"""A run whose recipe asks for TensorBoard leaves event files of the numbers in metrics.jsonl."""

import json

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.runs.local_run import run_local


def test_what_tensorboard_shows_is_what_metrics_hold(recipe: Recipe) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    folder = run_local(with_changes(recipe, {"tracking.tensorboard": True}))
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    events = accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    for key in ("loss", "reward_mean", "grad_norm"):
        shown = [(each.step, each.value) for each in events.Scalars(f"train/{key}")]
        assert shown == [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines]
    assert len(lines) == 2
