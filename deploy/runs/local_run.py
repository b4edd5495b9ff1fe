"""`local`: the algorithm of local.py on a recipe, with a run folder like the service's."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.machine import prepare_device
from common.models.families import PolicyModule
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.models.weights_files import save_weights
from common.weights.snapshot import take_snapshot, weights_sha256
from deploy.local import post_train
from deploy.runs.progress_line import RECENT_STEPS, ProgressLine, local_text, progress_stream
from deploy.runs.run_folder import RunFolder, open_run_folder
from deploy.runs.tracking.following import tracking
from deploy.service.check import require_sound
from learner.checkpoint import POLICY

log = logging.getLogger("vapi.local")


def run_local(recipe: Recipe) -> RunFolder:
    """Train in this process; writes metrics, the final weights and a summary. Never resumes."""
    require_sound(recipe)
    if recipe.profile == "published":
        raise RecipeError(
            "profile is published, which `train` alone can do: deploy/local.py is the corrected algorithm; set "
            "profile=corrected"
        )
    folder, _ = open_run_folder(recipe.model_copy(update={"resume": "never"}))
    folder.write_recipe(recipe)
    with tracking(recipe, folder):
        _train(recipe, folder)
    return folder


def _train(recipe: Recipe, folder: RunFolder) -> None:
    log.info("run folder %s", folder.path)
    device = prepare_device(recipe.compute)
    policy, num_steps = load_policy(recipe, device), recipe.learner.num_steps
    groups_learned, recent = 0, deque[dict[str, Any]](maxlen=RECENT_STEPS)
    with closing(ProgressLine(progress_stream(recipe.log))) as progress_line:
        for line in _lines(policy, recipe, device):
            groups_learned += line["num_groups"]
            folder.metrics(line)
            recent.append(line)
            progress_line.show(local_text(recent, num_steps))
    snapshot = take_snapshot(policy, num_steps, num_steps)
    save_weights(policy.state_dict(), folder.path / POLICY)
    folder.summary(
        {
            "status": "succeeded",
            "steps": snapshot.step,
            "groups_learned": groups_learned,
            "images_skipped": num_steps * recipe.learner.images_per_step - groups_learned,
            "weights_sha256": weights_sha256(snapshot),
        }
    )


def _lines(policy: PolicyModule, recipe: Recipe, device: torch.device) -> Iterator[dict[str, Any]]:
    """What metrics.jsonl says of each step, as the step is done."""
    start = time.monotonic()
    tokenizer, perceptual = load_tokenizer(recipe, device), load_perceptual_metric(recipe, device)
    for report in post_train(policy, tokenizer, perceptual, build_source(recipe, "train"), recipe, device):
        now = time.monotonic()
        yield {
            **asdict(report),
            "policy_version": report.step,
            "staleness_max": 0,
            "num_actors": 0,
            "step_seconds": now - start,
            "wait_seconds": 0.0,
        }
        start = now
