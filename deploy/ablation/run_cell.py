"""Trains and scores one cell of a study, in its own process."""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from actors.evaluation.pictures import free_running_grid
from actors.rewards.build import load_rewards
from actors.sources.build import build_source
from common.atomic import replacing
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.machine import prepare_device
from common.models.families import PolicyModule
from common.models.loading import load_policy, load_tokenizer
from common.protocols import ImageTokenizer
from deploy.ablation.delayed import post_train_delayed
from deploy.ablation.results import CellResult, Numbers, StudyFolder
from deploy.ablation.study import Cell
from deploy.local_methods import post_train
from deploy.scoring.scorer import Evaluation, Scorer, in_process

PICTURE_ROWS = 4


def run_cell(cell: Cell, folder: StudyFolder) -> None:
    """Train the cell, and score it with the study's recipe.

    Terms that a variant omits from its reward are still measured, because `scored_by` has them.
    """
    device = prepare_device(cell.scored_by.compute)
    start = time.monotonic()
    trained, steps = _trained(cell, device, folder)
    seconds = time.monotonic() - start
    evaluation = _evaluate(cell.scored_by, trained, device)
    _save_picture(folder.picture(cell), evaluation)
    folder.write(cell, CellResult(cell.settings, seconds, steps, _finite(evaluation.scores)))


class Trained(NamedTuple):
    policy: PolicyModule
    tokenizer: ImageTokenizer | None = None  # None: that of the study's recipe


def _trained(cell: Cell, device: torch.device, folder: StudyFolder) -> tuple[Trained, list[dict[str, Any]]]:
    if cell.recipe is None:
        return Trained(load_policy(cell.scored_by, device)), []
    if cell.runner == "train":
        return _served(cell, cell.recipe, device, folder)
    policy, rewards = load_policy(cell.recipe, device), load_rewards(cell.recipe, device)
    tokenizer = next(iter(rewards.values())).tokenizer
    source = build_source(cell.recipe, "train")
    if cell.delay:
        reward = rewards["teacher_forced"]
        reports = post_train_delayed(policy, tokenizer, reward, source, cell.recipe, device, cell.delay)
    else:
        reports = post_train(policy, tokenizer, rewards, source, cell.recipe, device)
    steps = [_finite(report.line()) for report in reports]
    return Trained(policy, tokenizer if cell.recipe.trains_decoder else None), steps


def _served(
    cell: Cell, recipe: Recipe, device: torch.device, folder: StudyFolder
) -> tuple[Trained, list[dict[str, Any]]]:
    """Train with the Ray service, which leaves a run folder beside the results. An interrupted run resumes."""
    from deploy.cluster.ray_environment import set_ray_environment

    set_ray_environment(recipe.log.format)
    import json

    from common.errors import UserError
    from deploy.service.driver import train
    from learner.checkpoint import newest_checkpoint

    changes = {
        "run": {"name": cell.key, "dir": str(folder.path / "runs")},
        "resume": "auto",
        "evaluation.enabled": False,
    }
    outcome = train(with_changes(recipe, changes))
    if outcome.stop_signal is not None:
        raise UserError(f"{cell.name} was stopped: run the study again to go on")
    checkpoint = newest_checkpoint(outcome.folder.checkpoints)
    assert checkpoint is not None, "a run that succeeded has a checkpoint of its last step"
    lines = (outcome.folder.path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    if recipe.trains_decoder:
        tokenizer = load_tokenizer(with_changes(recipe, {"tokenizer.checkpoint": str(checkpoint)}), device)
        return Trained(load_policy(recipe, device), tokenizer), steps
    return Trained(load_policy(recipe, device, str(checkpoint))), steps


def _evaluate(recipe: Recipe, trained: Trained, device: torch.device) -> Evaluation:
    run_chunks = in_process(recipe, trained.policy, device, tokenizer=trained.tokenizer)
    temperature = recipe.sampling.temperature
    (evaluation,) = Scorer(recipe).evaluate(run_chunks, temperature=temperature, num_seeds=1)
    return evaluation


def _save_picture(path: Path, evaluation: Evaluation) -> None:
    picture = free_running_grid(evaluation.pictures_NHWC, PICTURE_ROWS, evaluation.names)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="png")


def _finite(numbers: dict[str, Any]) -> Numbers:
    """Replace NaN and infinity, which JSON lacks, by null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
    }
