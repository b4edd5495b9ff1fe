"""Trains and scores one cell of a study, in a process of its own."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from actors.evaluation.pictures import free_running_panel, save_panels
from actors.sources.table import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.device import prepare_device
from common.models.families import PolicyModule
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.types import StepReport
from deploy.ablation.delayed import post_train_delayed
from deploy.ablation.results import BaseResult, CellResult, Numbers, StudyFolder
from deploy.ablation.study import BASE, Cell
from deploy.evaluation import Evaluation, Scorer, in_process
from deploy.local import post_train

PICTURE_ROWS = 4


def score_base(recipe: Recipe, num_seeds: int, folder: StudyFolder) -> None:
    """Score the generator that all variants start from, over several sampling seeds."""
    device = prepare_device(recipe.compute)
    evaluations = _evaluate(recipe, load_policy(recipe, device), device, num_seeds)
    _save_picture(folder.picture(BASE), BASE, evaluations[0])
    folder.write(BASE, BaseResult(recipe.model_dump(mode="json"), [_finite(each.scores) for each in evaluations]))


def run_cell(cell: Cell, scored_by: Recipe, runner: str, folder: StudyFolder) -> None:
    """Train the cell and score it with the study's recipe, its own sampling seed alone.

    What a variant leaves out of its reward is measured all the same, since `scored_by` has it.
    """
    device = prepare_device(cell.recipe.compute)
    start = time.monotonic()
    policy, steps = _trained(cell, device) if runner == "local" else _served(cell, device, folder)
    seconds = time.monotonic() - start
    seed = scored_by.evaluation.seed + cell.index
    (evaluation,) = _evaluate(with_changes(scored_by, {"evaluation.seed": seed}), policy, device, 1)
    _save_picture(folder.picture(cell.name), f"{cell.variant}, seed {cell.recipe.seed}", evaluation)
    recipe = cell.recipe.model_dump(mode="json")
    folder.write(
        cell.name,
        CellResult(cell.variant, cell.recipe.seed, cell.delay, recipe, seconds, steps, _finite(evaluation.scores)),
    )


def _trained(cell: Cell, device: torch.device) -> tuple[PolicyModule, list[dict[str, Any]]]:
    policy = load_policy(cell.recipe, device)
    return policy, [_finite(asdict(report)) for report in _reports(cell, policy, device)]


def _reports(cell: Cell, policy: PolicyModule, device: torch.device) -> Iterator[StepReport]:
    recipe = cell.recipe
    tokenizer, perceptual = load_tokenizer(recipe, device), load_perceptual_metric(recipe, device)
    source = build_source(recipe, "train")
    if cell.delay:
        return post_train_delayed(policy, tokenizer, perceptual, source, recipe, device, cell.delay)
    return post_train(policy, tokenizer, perceptual, source, recipe, device)


def _served(cell: Cell, device: torch.device, folder: StudyFolder) -> tuple[PolicyModule, list[dict[str, Any]]]:
    """By the Ray service, which leaves a run folder beside the results. An interrupted run goes on."""
    from deploy.ray_environment import set_ray_environment

    set_ray_environment(cell.recipe.log.format)
    import json

    from common.errors import UserError
    from deploy.driver import train
    from learner.checkpoint import newest_checkpoint

    changes = {
        "run": {"name": cell.name, "dir": str(folder.path / "runs")},
        "resume": "auto",
        "evaluation.enabled": False,
    }
    outcome = train(with_changes(cell.recipe, changes))
    if outcome.stop_signal is not None:
        raise UserError(f"{cell.name} was stopped: run the study again to go on")
    checkpoint = newest_checkpoint(outcome.folder.checkpoints)
    assert checkpoint is not None, "a run that succeeded has a checkpoint of its last step"
    lines = (outcome.folder.path / "metrics.jsonl").read_text().splitlines()
    return load_policy(cell.recipe, device, str(checkpoint)), [json.loads(line) for line in lines]


def _evaluate(recipe: Recipe, policy: PolicyModule, device: torch.device, num_seeds: int) -> list[Evaluation]:
    run_chunks = in_process(recipe, policy, device)
    return Scorer(recipe, device).evaluate(
        run_chunks, temperature=recipe.sampling.temperature, num_seeds=num_seeds
    )


def _save_picture(path: Path, title: str, evaluation: Evaluation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_panels(path, [free_running_panel(evaluation.pictures_NHWC, PICTURE_ROWS, title)])


def _finite(numbers: dict[str, Any]) -> Numbers:
    """JSON knows no NaN and no infinity, which become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
    }
