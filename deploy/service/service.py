"""One service: its processes, the scoring before and after, the loop between; to its end, or its learner's."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from actors.judge_actor import JudgeActor
from actors.judge_pool import JudgePool
from actors.pool_events import PublishedPolicy
from actors.rollout_actor import RolloutActor
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.recipe import Recipe
from common.facts import Ended, Fact, Resumed
from common.metrics.exporter import Exporter
from common.ray_calls_group import RayCalls
from common.request_facts import StopAskedFor
from deploy.cluster.ray_session import RaySession
from deploy.cluster.stop_signals import StopAsked, StopSignals
from deploy.runs.connection import connection_kept
from deploy.runs.group_records import keep_groups
from deploy.runs.progress_line import StepLine
from deploy.runs.prometheus import Prometheus
from deploy.runs.recorder import Sink
from deploy.runs.run_folder import RunFolder
from deploy.runs.status import Status
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.before_after import BeforeAfter
from deploy.scoring.scorer import Scorer
from deploy.service.attendance import Attendance
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.colocated_actor import ColocatedActor
from deploy.service.control_actor import ControlLink
from deploy.service.stepper import Counts, Stepper
from deploy.service.training_loop import TrainingLoop
from learner.checkpoint import Checkpoint
from learner.learner_actor import LearnerActor
from learner.learner_group import LearnerGroup

log = logging.getLogger("vapi.driver")


@dataclass(frozen=True)
class Parts:
    """What a run is made of beside its recipe; a test puts others in."""

    ray: RayCalls = field(default_factory=RayCalls)
    session: RaySession = field(default_factory=RaySession)
    rollout_actor: type = RolloutActor
    learner_actor: type[LearnerActor] = LearnerActor
    colocated_actor: type[LearnerActor] = ColocatedActor
    judge_actor: type = JudgeActor
    sinks: tuple[Sink, ...] = ()  # told of every fact, after the run's own
    stop: StopSignals = field(default_factory=StopSignals)


@dataclass(frozen=True)
class Surroundings:
    """What a run has one of, however often its service begins again."""

    recipe: Recipe
    folder: RunFolder
    parts: Parts
    tell: Callable[[Fact], None]
    exporter: Exporter
    prometheus: Prometheus
    status: Status
    line: StepLine


class ActorCounts(NamedTuple):
    """How many are wanted."""

    actors: int
    judges: int

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        return cls(recipe.actors.count, recipe.reward.actors.count)


class Service:
    def __init__(self, run: Surroundings, checkpoint: Checkpoint | None, counts: ActorCounts):
        """So many actors are wanted, whatever the recipe says."""
        self._run, self._recipe, self._parts = run, run.recipe, run.parts
        self._checkpoint, self._wanted = checkpoint, counts
        state = checkpoint.state if checkpoint else None
        self.counts = Counts(state.step, state.groups_learned, state.images_skipped) if state else Counts()
        self._pool: RolloutPool | None = None
        self._judges: JudgePool | None = None
        self._ask_digest: Callable[[], str | None] = lambda: None  # until the learner has weights
        self._digest: str | None = None  # of the final weights
        self.stop_signal: int | None = None  # that was asked for in the loop

    @property
    def actor_counts(self) -> ActorCounts:
        """Wanted now: `scale` and the autoscaler change them."""
        pools = zip((self._pool, self._judges), self._wanted, strict=True)
        return ActorCounts(*(wanted if pool is None else pool.num_wanted for pool, wanted in pools))

    def serve(self, begin: Callable[[], None], goes_on: bool) -> tuple[dict[str, Any], int | None]:
        """What the run came to, and the signal that ended it early.

        `begin` is called when the cluster has answered and the run's name is its own there. Raises
        LearnerLostError, and StopAsked before the run has begun.
        """
        with ExitStack() as cleanup:
            cleanup.enter_context(self._cluster())
            control = ControlLink(self._recipe.run.name, self._parts.ray)
            cleanup.callback(control.close)
            cleanup.enter_context(connection_kept(self._run.folder.path, self._parts.session.connection()))
            begin()
            try:
                summary, stop_signal = self._work(control, goes_on, cleanup)
            except StopAsked as asked:
                self._run.tell(StopAskedFor(asked.by))
                self._digest = self._digest or self._ask_digest()
                summary, stop_signal = self.summary("stopped"), asked.number
            self._parts.stop.leave_alone()
            self._run.tell(Ended(summary["status"], summary))
            return summary, stop_signal

    def summary(self, status: str, scores: dict[str, Any] | None = None) -> dict[str, Any]:
        """How far it came. The weights are known once the learner has given them."""
        return {
            "status": status,
            "steps": self.counts.step,
            "groups_learned": self.counts.groups_learned,
            "images_skipped": self.counts.images_skipped,
            "actor_restarts": self._pool.num_restarts if self._pool is not None else 0,
            "weights_sha256": self._digest,
            "evaluation": scores,
        }

    def _work(self, control: ControlLink, goes_on: bool, cleanup: ExitStack) -> tuple[dict[str, Any], int | None]:
        recipe, run = self._recipe, self._run
        attend = Attendance(recipe.run.name, control, run.exporter.beat)
        learner, pool = self._start_processes(attend, cleanup)
        if self._checkpoint is not None:
            learner.resume(self._checkpoint)
        if goes_on:
            run.tell(Resumed(self.counts.step))
        published = PublishedPolicy(self.counts.step, None)
        if pool.num_wanted:
            published = _publish(learner, self.counts.step)
        self._ask_digest = learner.weights_sha256
        before_after, during = self._evaluations(learner, attend, cleanup)
        if before_after is not None:
            before_after.before(pool, published)
        cleanup.callback(run.line.close)
        loop = self._loop(control, learner, pool, published, during)
        del published  # the loop has newer ones: the store is to forget this one
        cleanup.callback(loop.checkpoints.close)
        with attend.left_to(loop), self._parts.stop.passed_to(lambda asked: loop.stop(asked.number, asked.by)):
            try:
                loop.run()
            finally:
                self.stop_signal = loop.stop_signal
                loop.tell_of_stop()
        self._digest = learner.weights_sha256()
        run.line.close()
        is_trained = self.counts.step >= recipe.learner.num_steps
        if not is_trained or (before_after is not None and loop.stop_signal is not None):
            return self.summary("stopped"), loop.stop_signal
        scores = before_after.after(pool, loop.stepper.published) if before_after else None
        return self.summary("succeeded", scores), None

    def _loop(
        self,
        control: ControlLink,
        learner: LearnerGroup,
        pool: RolloutPool,
        published: PublishedPolicy,
        during: BackgroundEvaluation | None,
    ) -> TrainingLoop:
        recipe, run, ray = self._recipe, self._run, self._parts.ray
        keep = partial(keep_groups, run.folder.groups) if recipe.record.groups else None
        return TrainingLoop(
            recipe=recipe,
            tell=run.tell,
            watch=run.prometheus.watch,
            status=run.status.of,
            ray=ray,
            pool=pool,
            learner=learner,
            stepper=Stepper(run.tell, ray, learner, published, self.counts, keep, lambda: pool.num_wanted > 0),
            ledger=self._ledger(),
            control=control,
            checkpoints=CheckpointWriter(recipe, run.folder, run.tell, ray, learner),
            evaluation=during,
            judges=self._judges,
        )

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        session = self._parts.session
        try:
            try:
                log.info("%s", session.open(self._recipe))
            except SystemExit:  # Ray's own answer to SIGTERM while it starts
                raise StopAsked(signal.SIGTERM, "SIGTERM") from None
            self._parts.stop.reinstall()
            yield
        finally:
            session.close()

    def _start_processes(self, attend: Attendance, cleanup: ExitStack) -> tuple[LearnerGroup, RolloutPool]:
        """Ask for learner ranks and reward actors, which load in parallel, and wait for them."""
        recipe, parts, tell = self._recipe, self._parts, self._run.tell
        is_colocated = recipe.placement == "colocated"
        learner_actor = parts.colocated_actor if is_colocated else parts.learner_actor
        learner = LearnerGroup(recipe, tell, parts.ray, learner_actor)
        cleanup.callback(learner.shutdown)
        hosts = learner if is_colocated else None
        pool = RolloutPool(recipe, tell, attend, parts.ray, parts.rollout_actor, hosts=hosts)
        cleanup.callback(pool.shutdown)
        pool.resize(self._wanted.actors)
        self._pool = pool
        if self._wanted.judges:
            self._judges = JudgePool(recipe, tell, attend, parts.ray, parts.judge_actor)
            cleanup.callback(self._judges.shutdown)
            self._judges.resize(self._wanted.judges)
        log.info("waiting for %s", recipe.processes)
        attend("waiting for actors and learner ranks")
        learner.wait_ready(recipe.ray.placement_timeout_seconds, attend)
        pool.wait_ready(recipe.ray.placement_timeout_seconds)
        if self._judges is not None:
            self._judges.wait_ready(recipe.ray.placement_timeout_seconds)
        return learner, pool

    def _ledger(self) -> Ledger:
        recipe = self._recipe
        ledger = Ledger(
            recipe.learner.num_steps,
            recipe.tickets_per_step,
            recipe.actors.images_per_ticket,
            recipe.buffer.max_staleness,
        )
        if self._checkpoint is not None:
            ledger.restore(self._checkpoint.state.ledger)
        return ledger

    def _evaluations(
        self, learner: LearnerGroup, attend: Attendance, cleanup: ExitStack
    ) -> tuple[BeforeAfter | None, BackgroundEvaluation | None]:
        """The scoring before and after the run, and during it; none where the recipe asks for none."""
        recipe, folder, tell = self._recipe, self._run.folder, self._run.tell
        if not recipe.evaluation.enabled:
            return None, None
        scorer = Scorer(recipe)
        during = BackgroundEvaluation(scorer, recipe.sampling.temperature, tell, folder.samples)
        cleanup.callback(during.close)
        publish = partial(_publish, learner)
        return BeforeAfter(recipe, folder, tell, attend, scorer, publish, self._judges), during


def _publish(learner: LearnerGroup, version: int) -> PublishedPolicy:
    return PublishedPolicy(version, learner.snapshot(version))
