"""`local`: the algorithm of local.py on a recipe, with a run folder like the service's."""

import logging
import time
from dataclasses import asdict

from actors.sources.table import build_source
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.machine import prepare_device
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.models.weights_files import save_weights
from common.weights.snapshot import take_snapshot, weights_sha256
from deploy.local import post_train
from deploy.runs.live_line import LiveLine, progress_stream
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
    policy = load_policy(recipe, device)
    live_line = LiveLine(recipe.learner.num_steps, progress_stream(recipe.log))
    groups_learned, start = 0, time.monotonic()
    for report in post_train(
        policy,
        load_tokenizer(recipe, device),
        load_perceptual_metric(recipe, device),
        build_source(recipe, "train"),
        recipe,
        device,
    ):
        now = time.monotonic()
        line = {
            **asdict(report),
            "policy_version": report.step,
            "staleness_max": 0,
            "num_actors": 0,
            "step_seconds": now - start,
            "wait_seconds": 0.0,
        }
        start = now
        groups_learned += report.num_groups
        folder.metrics(line)
        live_line.step(line)
    live_line.close()
    snapshot = take_snapshot(policy, recipe.learner.num_steps, recipe.learner.num_steps)
    save_weights(policy.state_dict(), folder.path / POLICY)
    folder.summary(
        {
            "status": "succeeded",
            "steps": snapshot.step,
            "groups_learned": groups_learned,
            "images_skipped": recipe.learner.num_steps * recipe.learner.images_per_step - groups_learned,
            "weights_sha256": weights_sha256(snapshot),
        }
    )
