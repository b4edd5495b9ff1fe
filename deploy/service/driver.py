"""`train`: composes a run from its parts, in order, and closes them in reverse."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.pool_events import PublishedPolicy
from actors.rollout_actor import RolloutActor
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.load import checked
from common.config.recipe import Recipe
from common.errors import LearnerLostError, RecipeError
from common.facts import Ended, LearnerLost, Resumed, Started
from common.metrics.exporter import Exporter, Metrics
from common.ray_calls_group import RayCalls
from common.weights.snapshot import weights_sha256
from deploy.cluster.ray_session import RaySession, on_stop_signal
from deploy.reporting.live import LiveReport
from deploy.runs.group_records import keep_groups
from deploy.runs.progress_line import StepLine, progress_stream, service_text
from deploy.runs.prometheus import Prometheus
from deploy.runs.recorder import LogLines, Recorder, Sink
from deploy.runs.run_folder import RunFolder, open_run_folder
from deploy.runs.status import Status
from deploy.runs.tracking.following import tracking
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.before_after import BeforeAfter
from deploy.scoring.scorer import Scorer
from deploy.service.check import require_sound
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.stepper import Counts, Stepper
from deploy.service.training_loop import TrainingLoop
from learner.checkpoint import Checkpoint, CheckpointState, newest_checkpoint, read_checkpoint
from learner.learner_actor import LearnerActor
from learner.learner_group import LearnerGroup

log = logging.getLogger("vapi.driver")

MAX_ATTEMPTS = 3  # to get to the next checkpoint, with learner ranks that are all lost


@dataclass(frozen=True)
class Parts:
    """What a run is made of beside its recipe; a test puts others in."""

    ray: RayCalls = field(default_factory=RayCalls)
    session: RaySession = field(default_factory=RaySession)
    rollout_actor: type = RolloutActor
    learner_actor: type = LearnerActor
    sinks: tuple[Sink, ...] = ()  # told of every fact, after the run's own


@dataclass(frozen=True)
class Outcome:
    folder: RunFolder
    summary: dict[str, Any]
    stop_signal: int | None


def train(recipe: Recipe, parts: Parts | None = None) -> Outcome:
    """Run the service to its end. Raises UserError before Ray starts where the recipe cannot work."""
    require_sound(recipe)
    with ExitStack() as cleanup:
        metrics = Metrics()
        exporter = Exporter(metrics, recipe.metrics)
        cleanup.callback(exporter.close)
        folder, path = open_run_folder(recipe)
        checkpoint = read_checkpoint(path) if path else None
        if checkpoint is not None:
            require_same_run(recipe, checkpoint.state)
        goes_on = checkpoint is not None or folder.has_history
        folder.write_recipe(recipe)
        run = _Run(recipe, folder, exporter, Prometheus(recipe, metrics, exporter), parts or Parts())
        exporter.show(folder.path.name, LiveReport(folder.path))
        cleanup.enter_context(tracking(recipe, folder.path, run.recorder))
        step = checkpoint.state.step if checkpoint else 0
        run.recorder.tell(Started(f"{exporter.url}/metrics", str(path or ""), step))
        log.info("run folder %s, report %s/, metrics %s/metrics", folder.path, exporter.url, exporter.url)
        try:
            return run.until_done(checkpoint, goes_on)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            run.recorder.tell(Ended("failed", {"status": "failed", "error": reason}))
            raise


class _Run:
    """Its recorder hears of all that happens; each service in it lives until every learner rank is lost."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, exporter: Exporter, prometheus: Prometheus, parts: Parts
    ):
        self._recipe, self._folder, self._exporter, self._parts = recipe, folder, exporter, parts
        self._prometheus = prometheus
        self._status = Status(recipe, folder.checkpoints)
        self._line = StepLine(recipe.learner.num_steps, service_text, progress_stream(recipe.log))
        own = (LogLines(self._line.close), folder, prometheus, self._line, self._status)
        self.recorder = Recorder((*own, *parts.sinks))

    def until_done(self, checkpoint: Checkpoint | None, goes_on: bool) -> Outcome:
        """Where every learner rank was lost, begin again from the newest checkpoint, or from the start."""
        attempts = 0
        while True:
            try:
                with ExitStack() as cleanup:
                    return self._serve(checkpoint, goes_on, cleanup)
            except LearnerLostError as error:
                newest = newest_checkpoint(self._folder.checkpoints)
                attempts = attempts + 1 if newest == (checkpoint.path if checkpoint else None) else 1
                if attempts >= MAX_ATTEMPTS:
                    raise
                checkpoint, goes_on = (read_checkpoint(newest) if newest else None), True
                step = checkpoint.state.step if checkpoint else 0
                self.recorder.tell(LearnerLost(str(error), str(newest or ""), step))

    def _serve(self, checkpoint: Checkpoint | None, goes_on: bool, cleanup: ExitStack) -> Outcome:
        recipe, tell = self._recipe, self.recorder.tell
        cleanup.enter_context(self._cluster())
        control = ControlLink(recipe.run.name, self._parts.ray)
        cleanup.callback(control.close)
        learner, pool = self._start_processes(cleanup)
        counts, ledger = self._take_up(checkpoint, learner)
        if goes_on:
            tell(Resumed(counts.step))
        published = _publish(learner, counts.step)
        self._prometheus.weights(self._parts.ray.get(published.snapshot).num_bytes)
        before_after, during = self._evaluations(learner, cleanup)
        if before_after is not None:
            before_after.before(pool, published)
        cleanup.callback(self._line.close)
        keep = partial(keep_groups, self._folder.groups) if recipe.record.groups else None
        loop = TrainingLoop(
            recipe=recipe,
            tell=tell,
            watch=self._prometheus.watch,
            status=self._status.of,
            ray=self._parts.ray,
            pool=pool,
            learner=learner,
            stepper=Stepper(tell, self._parts.ray, learner, published, counts, keep),
            ledger=ledger,
            control=control,
            checkpoints=CheckpointWriter(recipe, self._folder, tell),
            evaluation=during,
        )
        cleanup.callback(on_stop_signal(loop.stop))
        loop.run()
        self._line.close()
        summary = self._summary(loop, before_after)
        tell(Ended(summary["status"], summary))
        return Outcome(self._folder, summary, loop.stop_signal)

    def _summary(self, loop: TrainingLoop, before_after: BeforeAfter | None) -> dict[str, Any]:
        """What the run came to, scored where it is whole."""
        is_whole, published, counts = loop.stop_signal is None, loop.stepper.published, loop.stepper.counts
        scores = before_after.after(loop.pool, published) if before_after and is_whole else None
        return {
            "status": "succeeded" if is_whole else "stopped",
            "steps": counts.step,
            "groups_learned": counts.groups_learned,
            "images_skipped": counts.images_skipped,
            "actor_restarts": loop.pool.num_restarts,
            "weights_sha256": weights_sha256(self._parts.ray.get(published.snapshot)),
            "evaluation": scores,
        }

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        session = self._parts.session
        try:
            log.info("%s", session.open(self._recipe))
            self._folder.connection(session.connection())
            yield
        finally:
            session.close()
            self._folder.disconnect()

    def _start_processes(self, cleanup: ExitStack) -> tuple[LearnerGroup, RolloutPool]:
        """Ask for learner ranks and reward actors, which load in parallel, and wait for them."""
        recipe, parts, tell, beat = self._recipe, self._parts, self.recorder.tell, self._exporter.beat
        learner = LearnerGroup(recipe, tell, parts.ray, parts.learner_actor)
        cleanup.callback(learner.shutdown)
        pool = RolloutPool(recipe, tell, beat, parts.ray, parts.rollout_actor)
        cleanup.callback(pool.shutdown)
        pool.resize(recipe.actors.count)
        num_ranks, num_actors = recipe.learner.num_ranks, recipe.actors.count
        log.info("waiting for %d learner ranks and %d reward actors", num_ranks, num_actors)
        beat("waiting for actors and learner ranks")
        learner.wait_ready(recipe.ray.placement_timeout_seconds, beat)
        pool.wait_ready(recipe.ray.placement_timeout_seconds)
        return learner, pool

    def _take_up(self, checkpoint: Checkpoint | None, learner: LearnerGroup) -> tuple[Counts, Ledger]:
        """Where the run stands, with the learner brought there."""
        recipe = self._recipe
        ledger = Ledger(
            recipe.learner.num_steps,
            recipe.tickets_per_step,
            recipe.actors.images_per_ticket,
            recipe.buffer.max_staleness,
        )
        if checkpoint is None:
            return Counts(), ledger
        learner.resume(checkpoint)
        state = checkpoint.state
        ledger.restore(state.ledger)
        return Counts(state.step, state.groups_learned, state.images_skipped), ledger

    def _evaluations(
        self, learner: LearnerGroup, cleanup: ExitStack
    ) -> tuple[BeforeAfter | None, BackgroundEvaluation | None]:
        """The scoring before and after the run, and during it; none where the recipe asks for none."""
        recipe, folder, tell = self._recipe, self._folder, self.recorder.tell
        if not recipe.evaluation.enabled:
            return None, None
        scorer = Scorer(recipe)
        during = BackgroundEvaluation(scorer, recipe.sampling.temperature, tell, folder.samples)
        cleanup.callback(during.close)
        publish = partial(_publish, learner)
        return BeforeAfter(recipe, folder, tell, self._exporter.beat, scorer, publish), during


def _publish(learner: LearnerGroup, version: int) -> PublishedPolicy:
    return PublishedPolicy(version, learner.snapshot(version))


# What a checkpoint's samples and weights mean depends on these; anything else may change over a resume.
_FIXED = ("seed", "image_size", "source", "tokenizer", "policy", "group", "context")


def require_same_run(recipe: Recipe, state: CheckpointState) -> None:
    """RecipeError where the checkpoint belongs to another run than the recipe describes."""
    stored = checked(
        state.recipe,
        "the checkpoint to resume from has a recipe of another version (start anew with resume=never)",
    )
    before, now = stored.model_dump(mode="json"), recipe.model_dump(mode="json")
    changed = [key for key in _FIXED if now[key] != before[key]]
    for section, key in (("learner", "images_per_step"), ("actors", "images_per_ticket")):
        if now[section][key] != before[section][key]:
            changed.append(f"{section}.{key}")
    if changed:
        raise RecipeError(
            f"the checkpoint to resume from was made with another {', '.join(changed)}: resume with the recipe "
            "in its run folder, or start anew with resume=never"
        )
