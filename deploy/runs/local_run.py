"""`local`: the algorithm of local.py on a recipe, with a run folder like the service's."""

import logging
import time
from collections.abc import Callable
from typing import cast

from torch import nn

from actors.rewards.build import load_rewards
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.facts import Ended, Fact, RewardsFlat, StepLearned
from common.machine import prepare_device
from common.models.loading import load_policy
from common.models.lora import trained_tensors
from common.weights.snapshot import weights_sha256
from deploy.local_methods import post_train
from deploy.runs.final_weights import save_final
from deploy.runs.progress_line import StepLine, local_text, progress_stream
from deploy.runs.recorder import LogLines, Recorder
from deploy.runs.run_folder import RunFolder, open_run_folder
from deploy.runs.run_log import kept_log
from deploy.runs.tracking.following import tracking
from deploy.service.check import require_sound

log = logging.getLogger("vapi.local")


def run_local(recipe: Recipe) -> RunFolder:
    """Train in this process; writes metrics, the final weights and a summary. Never resumes."""
    require_sound(recipe, in_ray=False)
    if recipe.profile == "published":
        raise RecipeError(
            "profile is published, which `train` alone can do: deploy/local.py is the corrected algorithm; set "
            "profile=corrected"
        )
    if recipe.record.groups:
        raise RecipeError("record.groups is true, which `train` alone can do: set record.groups=false")
    prepare_device(recipe.compute)  # a GPU that is not there is told before a folder is made
    with open_run_folder(recipe.model_copy(update={"resume": "never"})) as (folder, _):
        recipe = with_changes(recipe, {"run.name": folder.path.name})
        folder.write_recipe(recipe)
        line = StepLine(recipe.learner.num_steps, local_text, progress_stream(recipe.log))
        recorder = Recorder((LogLines(line.close), folder, line))
        with kept_log(folder.path, recipe.log.format), tracking(recipe, folder.path, recorder):
            _train(recipe, folder, recorder.tell)
    return folder


def _train(recipe: Recipe, folder: RunFolder, tell: Callable[[Fact], None]) -> None:
    log.info("run folder %s", folder.path)
    device = prepare_device(recipe.compute)
    policy = load_policy(recipe, device)
    rewards = load_rewards(recipe, device)
    tokenizer = next(iter(rewards.values())).tokenizer
    reports = post_train(policy, tokenizer, rewards, build_source(recipe, "train"), recipe, device)
    groups_learned, start = 0, time.monotonic()
    for report in reports:
        now = time.monotonic()
        groups_learned += report.num_groups
        tell(StepLearned.alone(report, now - start))
        if report.num_flat:
            tell(RewardsFlat.of(report))
        start = now
    trained = cast(nn.Module, tokenizer if recipe.trains_decoder else policy)
    save_final(trained, recipe, folder.path)
    summary = {
        "status": "succeeded",
        "steps": recipe.learner.num_steps,
        "groups_learned": groups_learned,
        "images_skipped": recipe.learner.num_steps * recipe.learner.images_per_step - groups_learned,
        "weights_sha256": weights_sha256(trained_tensors(trained)),
    }
    tell(Ended("succeeded", summary))
