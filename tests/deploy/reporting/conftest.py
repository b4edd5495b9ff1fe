"""Run folders as the driver leaves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe

SCORES = {"held_out_reward": -0.05, "fd": 10.0}


def step(number: int, **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "step": number,
        "num_groups": 64,
        "loss": 0.5 - 0.001 * number,
        "policy_loss": 0.0,
        "ce_prior": 1.5,
        "reward_mean": -0.05 + 0.001 * number,
        "reward_mse": 0.03,
        "reward_lpips": 0.01,
        "reward_std": 0.01,
        "clip_fraction": 0.0,
        "grad_norm": 0.4 + 0.01 * number,
        "staleness_max": 1,
        "staleness_mean": 0.5,
        "num_actors": 2,
        "step_seconds": 4.0,
        "wait_seconds": 1.0,
        "stage_seconds": {"fetch": 0.5, "forward_backward": 2.0},
        "actor_stage_seconds": {"read": 1.0, "decode": 3.0},
    } | changes


def event(second: int, kind: str, **facts: Any) -> dict[str, Any]:
    return {"time": f"2026-01-02T03:04:{second:02d}+00:00", "event": kind, **facts}


@pytest.fixture
def run_folder(tiny_recipe: Recipe, tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder: run_folder(steps, events, summary, evaluations, changes of the recipe)."""

    def make(
        steps: list[dict[str, Any]],
        events: list[dict[str, Any]],
        summary: dict[str, Any] | None = None,
        evaluations: list[dict[str, Any]] | None = None,
        changes: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / "runs" / "try"
        folder.mkdir(parents=True)
        recipe = with_changes(tiny_recipe, {"run.name": "try", "learner.num_steps": 10} | (changes or {}))
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        logs = {"metrics": steps, "events": events, "evaluations": evaluations or []}
        for name, lines in logs.items():
            if lines:
                (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if summary is not None:
            write_json(folder / "summary.json", summary)
        return folder

    return make


@pytest.fixture
def ended_run(run_folder: Callable[..., Path]) -> Path:
    """Ten steps that succeeded, with scores and pictures."""
    evaluation = {
        "before": SCORES,
        "after": {"held_out_reward": -0.04, "fd": 10.25},
        "noise": {"held_out_reward": 0.002, "fd": 0.5},
        "prior_alone": {"held_out_reward": -0.045, "fd": 8.0},
    }
    summary = {"status": "succeeded", "steps": 10, "groups_learned": 640, "images_skipped": 0, "actor_restarts": 1}
    folder = run_folder(
        [step(number) for number in range(1, 11)],
        [event(0, "started", resumed_from=""), event(59, "succeeded", steps=10)],
        summary | {"weights_sha256": "0123abcd", "evaluation": evaluation},
    )
    (folder / "samples").mkdir()
    for name in ("before_after", "held_out", "step-000000", "step-000010"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "samples" / f"{name}.png")
    return folder
