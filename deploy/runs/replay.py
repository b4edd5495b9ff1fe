"""`replay`: learns again from the groups that a run recorded, in this process and without an actor."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.clock import StageClock
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.errors import DataError, RecipeError
from common.facts import Ended, Fact, StepLearned
from common.machine import prepare_device
from common.models.loading import load_trained
from common.models.lora import trained_tensors
from common.paths import find_run, places_text
from common.reward_terms import RewardTerms
from common.schema import GroupBatch
from common.types import StepReport
from common.weights.snapshot import load_snapshot, weights_sha256
from deploy.runs.final_weights import save_final
from deploy.runs.group_records import FOLDER, read_groups, recorded_steps
from deploy.runs.progress_line import StepLine, local_text, progress_stream
from deploy.runs.recorder import Recorder
from deploy.runs.run_folder import RunFolder, open_run_folder
from learner.checkpoint import read_checkpoint
from learner.recorded_credit import require_credit
from learner.train_step import Trainer

log = logging.getLogger("vapi.replay")


@dataclass(frozen=True)
class Replayed:
    """What came of it, beside what the run had."""

    folder: RunFolder
    steps: int
    largest_difference: float | None  # of the loss of a step; None where the run has no losses of these steps
    at_step: int


def replay(run: str, overrides: list[str]) -> Replayed:
    """Learn from the recorded groups of `run` under its recipe with `overrides`.

    Writes a run folder of its own, NAME-replay. Raises RecipeError and DataError.
    """
    source = find_run(run)
    if source is None:
        raise RecipeError(f"there is no run folder {places_text(run)}: a folder with a recipe.json is needed")
    recipe = load_recipe(source / "recipe.json", overrides)
    paths = _steps_to_do(source, recipe)
    own = with_changes(recipe, {"run.name": f"{source.name}-replay", "resume": "never"})
    line = StepLine(max(paths), local_text, progress_stream(recipe.log))
    losses: dict[int, float] = {}
    with open_run_folder(own) as (folder, _), closing(line):
        folder.write_recipe(recipe)
        for report in _learned(recipe, source, folder, paths, Recorder((folder, line)).tell):
            losses[report.step] = report.loss
        return _compared(folder, losses, source)


def _steps_to_do(source: Path, recipe: Recipe) -> dict[int, Path]:
    """The recorded steps, without a gap, up to the recipe's last."""
    recorded = recorded_steps(source / FOLDER)
    paths = {step: path for step, path in recorded.items() if step <= recipe.learner.num_steps}
    if not paths:
        raise DataError(f"{source} holds no recorded groups: train it with record.groups=true")
    missing = [step for step in range(min(paths), max(paths)) if step not in paths]
    if missing:
        raise DataError(
            f"step {missing[0]} of {source} is not recorded, but later ones are: set learner.num_steps below it"
        )
    _require_terms(read_groups(paths[min(paths)], recipe), recipe)
    return paths


def _require_terms(groups: GroupBatch, recipe: Recipe) -> None:
    """RecipeError where the recipe weighs what was not recorded."""
    require_credit(groups, recipe)
    if recipe.is_scored_in_learner:
        return
    terms = {name: torch.from_numpy(np.array(column)) for name, column in groups.reward_terms.items()}
    RewardTerms((len(groups), groups.group_size), terms).rewards(recipe.reward.weights)
    if recipe.has_reward_maps and not groups.reward_maps:
        raise RecipeError(
            "advantage.credit is token, and these groups were recorded without reward maps: leave it at sample"
        )


def _learned(
    recipe: Recipe, source: Path, folder: RunFolder, paths: dict[int, Path], tell: Callable[[Fact], None]
) -> Iterator[StepReport]:
    log.info("run folder %s", folder.path)
    device = prepare_device(recipe.compute)
    trainer = Trainer(load_trained(recipe, device), recipe, device)
    _begin(trainer, source, min(paths) - 1)
    groups_learned, start = 0, time.monotonic()
    for path in paths.values():
        clock = StageClock(device)
        sums, norm = trainer.train(read_groups(path, recipe), clock)
        report = sums.report(trainer.step, norm, dict(clock.seconds))
        now = time.monotonic()
        tell(StepLearned.alone(report, now - start))
        start, groups_learned = now, groups_learned + report.num_groups
        yield report
    save_final(trainer.model, recipe, folder.path)
    summary = {
        "status": "succeeded",
        "steps": trainer.step,
        "groups_learned": groups_learned,
        "images_skipped": 0,
        "weights_sha256": weights_sha256(trained_tensors(trainer.model)),
        "replay_of": str(source),
    }
    tell(Ended("succeeded", summary))


def _begin(trainer: Trainer, source: Path, step: int) -> None:
    """Where the recording begins after a resume, the state is that of the checkpoint before."""
    if step == 0:
        return
    path = source / "checkpoints" / f"step-{step:06d}"
    if not path.is_dir():
        raise DataError(
            f"the recording of {source} begins with step {step + 1}, and {path} is not there: record a run from "
            "its start, or keep the checkpoint that it was resumed from"
        )
    checkpoint = read_checkpoint(path)
    load_snapshot(trainer.model, checkpoint.weights)
    trainer.load_optimizer_arrays(checkpoint.optimizer)
    trainer.step = step


def _compared(folder: RunFolder, losses: dict[int, float], source: Path) -> Replayed:
    path = source / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    before = {line["step"]: line["loss"] for line in lines if line.get("loss") is not None}
    differences = {step: abs(loss - before[step]) for step, loss in losses.items() if step in before}
    at_step = max(differences, key=lambda step: differences[step], default=0)
    return Replayed(folder, len(losses), differences.get(at_step), at_step)
