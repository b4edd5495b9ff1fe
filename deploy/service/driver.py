"""`train`: composes a run from its parts, in order, and closes them in reverse."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ray

from actors.pool_events import Published
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.recipe import Recipe
from common.errors import LearnerLostError, RecipeError
from common.log import log_context
from common.metrics.exporter import Exporter, Metrics
from common.weights.snapshot import weights_sha256
from deploy.cluster.ray_session import connection, on_stop_signal, start_ray, stop_ray
from deploy.runs.measurements import Measurements
from deploy.runs.progress_line import ProgressLine, progress_stream
from deploy.runs.run_folder import RunFolder, open_run_folder
from deploy.runs.tracking.following import tracking
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.before_after import BeforeAfter
from deploy.scoring.scorer import Scorer
from deploy.service.check import require_sound
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.training_loop import Progress, TrainingLoop
from learner.checkpoint import Checkpoint, CheckpointState, newest_checkpoint, read_checkpoint
from learner.learner_group import LearnerGroup

log = logging.getLogger("vapi.driver")

MAX_ATTEMPTS = 3  # to get to the next checkpoint, with learner ranks that are all lost


@dataclass(frozen=True)
class Outcome:
    folder: RunFolder
    summary: dict[str, Any]
    stop_signal: int | None


def train(recipe: Recipe) -> Outcome:
    """Run the service to its end. Raises UserError before Ray starts where the recipe cannot work."""
    require_sound(recipe)
    with ExitStack() as cleanup:
        metrics = Metrics()
        exporter = Exporter(metrics, recipe.metrics)
        cleanup.callback(exporter.close)
        folder, path = open_run_folder(recipe)
        checkpoint = read_checkpoint(path) if path else None
        if checkpoint is not None:
            _require_same_run(recipe, checkpoint.state)
        folder.write_recipe(recipe)
        cleanup.enter_context(tracking(recipe, folder))
        folder.event(
            "started",
            metrics=f"{exporter.url}/metrics",
            resumed_from=str(path or ""),
            step=checkpoint.state.step if checkpoint else 0,
        )
        log.info("run folder %s, metrics %s/metrics", folder.path, exporter.url)
        try:
            return _serve_until_done(recipe, folder, checkpoint, metrics, exporter)
        except BaseException as error:
            folder.event("failed", error=f"{type(error).__name__}: {error}")
            folder.summary({"status": "failed", "error": f"{type(error).__name__}: {error}"})
            raise


def _serve_until_done(
    recipe: Recipe, folder: RunFolder, checkpoint: Checkpoint | None, metrics: Metrics, exporter: Exporter
) -> Outcome:
    """Where every learner rank was lost, begin again from the newest checkpoint, or from the start without one."""
    attempts = 0
    while True:
        try:
            with ExitStack() as cleanup:
                return _serve(recipe, folder, checkpoint, metrics, exporter, cleanup)
        except LearnerLostError as error:
            newest = newest_checkpoint(folder.checkpoints)
            attempts = attempts + 1 if newest == (checkpoint.path if checkpoint else None) else 1
            if attempts >= MAX_ATTEMPTS:
                raise
            checkpoint = read_checkpoint(newest) if newest else None
            step = checkpoint.state.step if checkpoint else 0
            log.warning("%s; going on from step %d", error, step)
            folder.event("learner_lost", reason=str(error), resumed_from=str(newest or ""), step=step)


def _serve(
    recipe: Recipe,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    metrics: Metrics,
    exporter: Exporter,
    cleanup: ExitStack,
) -> Outcome:
    cleanup.callback(stop_ray)
    log.info("%s", start_ray(recipe))
    folder.connection(connection())
    cleanup.callback(folder.disconnect)
    control = ControlLink(recipe.run.name)
    measurements = Measurements(recipe, metrics, exporter)

    def on_event(kind: str, **facts: Any) -> None:
        folder.event(kind, **facts)
        measurements.event(kind)

    learner = LearnerGroup(recipe, on_event)
    cleanup.callback(learner.shutdown)
    pool = RolloutPool(recipe, on_event, exporter.beat)
    cleanup.callback(pool.shutdown)
    pool.start()
    log.info("waiting for %d learner ranks and %d reward actors", recipe.learner.num_ranks, recipe.actors.count)
    exporter.beat("waiting for actors and learner ranks")
    learner.wait_ready(recipe.ray.placement_timeout_seconds, exporter.beat)
    pool.wait_ready(recipe.ray.placement_timeout_seconds)

    progress = Progress()
    learner_config = recipe.learner
    ledger = Ledger(
        learner_config.num_steps,
        recipe.tickets_per_step,
        recipe.actors.images_per_ticket,
        recipe.buffer.max_staleness,
    )
    if checkpoint is not None:
        state = checkpoint.state
        learner.resume(checkpoint)
        ledger.restore(state.ledger)
        progress = Progress(state.step, state.version, state.groups_learned, state.images_skipped)
    folder.go_back_to(progress.step)
    log_context(step=progress.step)
    published = Published(progress.version, learner.snapshot(progress.version))
    measurements.published(ray.get(published.snapshot).num_bytes)

    before_after, during = None, None
    if recipe.evaluation.enabled:
        scorer = Scorer(recipe)
        during = BackgroundEvaluation(scorer, recipe.sampling.temperature, folder)
        cleanup.callback(during.close)
        before_after = BeforeAfter(recipe, folder, exporter.beat, scorer)
        before_after.before(pool, published)
    progress_line = ProgressLine(progress_stream(recipe.log))
    cleanup.callback(progress_line.close)
    loop = TrainingLoop(
        recipe,
        folder,
        pool,
        learner,
        ledger,
        measurements,
        progress_line,
        published,
        control,
        CheckpointWriter(recipe, folder),
        during,
        progress,
    )

    def stop(number: int) -> None:
        loop.stop_signal = number

    cleanup.callback(on_stop_signal(stop))
    loop.run()
    measurements.ended()
    progress_line.close()
    scores = before_after.after(pool, loop.published) if before_after and loop.stop_signal is None else None
    status = "succeeded" if loop.stop_signal is None else "stopped"
    summary = {
        "status": status,
        "steps": progress.step,
        "groups_learned": progress.groups_learned,
        "images_skipped": progress.images_skipped,
        "actor_restarts": pool.num_restarts,
        "weights_sha256": weights_sha256(ray.get(loop.published.snapshot)),
        "evaluation": scores,
    }
    folder.summary(summary)
    folder.event(status, steps=progress.step)
    return Outcome(folder, summary, loop.stop_signal)


# What a checkpoint's samples and weights mean depends on these; anything else may change over a resume.
_FIXED = ("seed", "image_size", "source", "tokenizer", "policy", "group", "context")


def _require_same_run(recipe: Recipe, state: CheckpointState) -> None:
    """RecipeError where the checkpoint belongs to another run than the recipe describes."""
    now = recipe.model_dump(mode="json")
    changed = [key for key in _FIXED if now[key] != state.recipe[key]]
    for section, key in (("learner", "images_per_step"), ("actors", "images_per_ticket")):
        if now[section][key] != state.recipe[section][key]:
            changed.append(f"{section}.{key}")
    if changed:
        raise RecipeError(
            f"the checkpoint to resume from was made with another {', '.join(changed)}: resume with the recipe "
            "in its run folder, or start anew with resume=never"
        )
