"""The driver's loop: hands out tickets, collects groups, steps the learner, publishes weights, checkpoints.

One thread. It only decides what comes next: the ledger knows the rules, the pool and the group do the work, and
the recorder is told what happened.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.pool_events import ChunkDone, Delivery, LostActor, LostTicket, PublishedPolicy
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import RolloutBuffer
from common.config.recipe import Recipe
from common.facts import (
    Fact,
    GroupsQuarantined,
    Published,
    RewardsFlat,
    Scaled,
    StepLearned,
    StepSkipped,
    StopAskedFor,
)
from common.ray_calls_group import RayCalls
from common.types import StepReport
from deploy.runs.status import LoopState
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.service.autoscaler import Autoscaler
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.intake import Intake
from deploy.service.running_step import RunningStep
from learner.checkpoint import CheckpointState
from learner.learner_group import LearnerGroup

POLL_SECONDS = 0.5


@dataclass
class Counts:
    """Where the run is; what a checkpoint keeps of it."""

    step: int = 0
    groups_learned: int = 0
    images_skipped: int = 0


@dataclass
class TrainingLoop:
    recipe: Recipe
    tell: Callable[[Fact], None]
    watch: Callable[[LoopState], None]  # shown the state of the moment, at every turn
    status: Callable[[LoopState], dict]  # the answer to `status`
    ray: RayCalls
    pool: RolloutPool
    learner: LearnerGroup
    ledger: Ledger
    published: PublishedPolicy
    control: ControlLink
    checkpoints: CheckpointWriter
    evaluation: BackgroundEvaluation | None = None
    counts: Counts = field(default_factory=Counts)
    stop_signal: int | None = None
    _running: RunningStep | None = None
    _weights_are_lost: bool = False  # no actor can pull the published version

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.buffer = RolloutBuffer(recipe.buffer.max_bytes)
        self._intake = Intake(self.ledger, self.buffer, recipe.actors.images_per_ticket, self.tell)
        self._autoscaler = Autoscaler(recipe.actors.autoscale) if recipe.actors.autoscale else None
        self._idle_since = self._last_publication = self.ray.clock()

    def run(self) -> None:
        """Until every step is done, or a signal asks to stop; either way with a checkpoint at the end."""
        last_saved = self.counts.step
        while self._is_unfinished():
            if self.stop_signal is not None and self._running is None:
                break
            self._answer_requests()
            self._start_step()
            self._hand_out()
            self._wait()
            self._collect()
            if self._finish_step():
                self._start_evaluation()
                if self.counts.step % self.recipe.checkpoint.every == 0:
                    self._checkpoint()
                    last_saved = self.counts.step
            if self.evaluation is not None:
                self.evaluation.record()
            self.watch(self._state())
        if last_saved != self.counts.step:
            self._checkpoint()

    def _is_unfinished(self) -> bool:
        evaluating = self.evaluation is not None and self.evaluation.is_running
        return evaluating or self.counts.step < self.recipe.learner.num_steps

    def stop(self, signal_number: int) -> None:
        """Finish the running step, then stop; for a signal handler."""
        self.stop_signal = signal_number

    def _answer_requests(self) -> None:
        for request in self.control.exchange(lambda: self.status(self._state())):
            if "scale" in request:
                self._scale(request["scale"], "asked for")
            elif "stop" in request:
                self.tell(StopAskedFor())
                self.stop(signal.SIGTERM)

    def _scale(self, count: int, reason: str) -> None:
        before = self.pool.num_wanted
        if count != before:
            self.pool.resize(count)
            self.tell(Scaled(before, count, reason))

    def _state(self) -> LoopState:
        return LoopState(
            step=self.counts.step,
            policy_version=self.published.version,
            tickets_learned=self.ledger.num_learned,
            num_tickets=self.ledger.num_tickets,
            groups_learned=self.counts.groups_learned,
            images_skipped=self.counts.images_skipped,
            groups_buffered=self.buffer.num_groups,
            bytes_buffered=self.buffer.num_bytes,
            actors=self.pool.states(),
            actors_wanted=self.pool.num_wanted,
            actor_restarts=self.pool.num_restarts,
        )

    def _hand_out(self) -> None:
        """Give every free actor a chunk of a running evaluation or a ticket, while the ledger has slots."""
        if self.stop_signal is not None or not self._have_weights():
            return
        for actor in self.pool.free_actors():
            chunk = self.evaluation.take(actor) if self.evaluation else None
            if chunk is not None:
                self.pool.submit_chunk(actor, *chunk)
                continue
            ticket = self.ledger.admit(actor)
            if ticket is None:
                return
            self.pool.submit(actor, ticket, self.published)

    def _have_weights(self) -> bool:
        """Whether actors can pull the published version; should it be lost, the learner gives it again."""
        if self._weights_are_lost and self._running is None:
            self._publish()
        return not self._weights_are_lost

    def _wait(self) -> None:
        references = [*self.pool.waiting_for(), *self.learner.waiting_for()]
        if references:
            self.ray.ready(references, timeout=POLL_SECONDS)
        elif self.evaluation is not None:  # its thread alone is at work
            self.evaluation.wait(POLL_SECONDS)

    def _collect(self) -> None:
        for event in self.pool.collect():
            if isinstance(event, Delivery):
                self._intake.deliver(event)
            elif isinstance(event, LostActor):
                self._intake.lose_actor(event)
                if self.evaluation is not None:
                    self.evaluation.give_back(event.actor)
            elif isinstance(event, LostTicket):
                is_current = event.version == self.published.version
                self._weights_are_lost |= event.lost == "weights" and is_current
                self._intake.lose_ticket(event)
            elif isinstance(event, ChunkDone) and self.evaluation is not None:
                self.evaluation.deliver(event.index, event.result)

    def _start_step(self) -> None:
        if self._running is not None or self.stop_signal is not None:
            return
        taken = self._intake.take(self.published.version)
        if taken is None:
            return
        self.counts.images_skipped += sum(len(ticket.receipt.skipped) for ticket in taken)
        self.learner.start_step([(t.groups, t.receipt.num_groups) for t in taken if t.receipt.num_groups])
        self._running = RunningStep(taken, self.published.version, self.ray.clock() - self._idle_since)

    def _finish_step(self) -> bool:
        """Publish the weights of the running step if it has ended; whether it had."""
        if self._running is None or not self.ray.ready(self.learner.waiting_for()):
            return False
        running, self._running = self._running, None
        report = self.learner.finish_step()
        self.counts.step = report.step
        self.counts.groups_learned += report.num_groups
        self._publish()
        self.ledger.release(running.ids)
        self._tell_step(report, running)
        return True

    def _publish(self) -> None:
        """Policy version n is what n optimizer steps made."""
        start, version = self.ray.clock(), self.counts.step
        self.published = PublishedPolicy(version, self.learner.snapshot(version))
        self._weights_are_lost = False
        self.tell(Published(version, self.ray.clock() - start))

    def _tell_step(self, report: StepReport, running: RunningStep) -> None:
        now = self.ray.clock()
        step_seconds, self._last_publication, self._idle_since = now - self._last_publication, now, now
        self.tell(
            StepLearned(
                report=report,
                policy_version=self.published.version,
                tickets=running.ids,
                staleness=running.staleness,
                num_actors=len(self.pool),
                groups_buffered=self.buffer.num_groups,
                step_seconds=step_seconds,
                wait_seconds=running.wait_seconds,
                actor_stage_seconds=running.actor_stage_seconds(),
            )
        )
        if report.is_bad:
            self.tell(StepSkipped(report.step, str(report.grad_norm)))
        if report.num_quarantined:
            self.tell(GroupsQuarantined(report.step, report.num_quarantined))
        if report.num_flat:
            self.tell(RewardsFlat.of(report))
        self._autoscale(running.wait_seconds / max(step_seconds, 1e-9))

    def _autoscale(self, wait_share: float) -> None:
        if self._autoscaler is None:
            return
        stock = self.recipe.buffer.max_staleness * self.recipe.learner.images_per_step
        fill = self.buffer.num_groups / stock if stock else 0.0
        decision = self._autoscaler.after_step(wait_share, fill, len(self.pool), self.pool.num_wanted)
        if decision is not None:
            self._scale(*decision)

    def _start_evaluation(self) -> None:
        step, every = self.counts.step, self.recipe.evaluation.every
        if self.evaluation and every and step % every == 0 and step < self.recipe.learner.num_steps:
            self.evaluation.start(self.published)

    def _checkpoint(self) -> None:
        counts = self.counts
        state = CheckpointState(
            step=counts.step,
            ledger=self.ledger.state(),
            groups_learned=counts.groups_learned,
            images_skipped=counts.images_skipped,
            recipe=self.recipe.model_dump(mode="json"),
        )
        snapshot = self.ray.get(self.published.snapshot)
        self.checkpoints.write(snapshot, self.learner.optimizer_arrays(), state)
        self._idle_since = self.ray.clock()
