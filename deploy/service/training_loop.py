"""The driver's loop: hands out tickets, collects groups, steps the learner, publishes weights, checkpoints.

One thread. It only decides what comes next: the ledger knows the rules, the pool and the group do the work, and
the recorder is told what happened.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.pool_events import ChunkDone, Delivery, LostActor, LostChunk, LostTicket
from actors.pool_size import TooManyActorsError
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import RolloutBuffer
from common.config.recipe import Recipe
from common.facts import Fact, StepLearned
from common.ray_calls_group import RayCalls
from common.request_facts import Scaled, ScaleRefused, StopAskedFor
from deploy.runs.status import LoopState
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.service.autoscaler import Autoscaler
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.intake import Intake
from deploy.service.stepper import Stepper
from learner.learner_group import LearnerGroup

POLL_SECONDS = 0.5


@dataclass
class TrainingLoop:
    recipe: Recipe
    tell: Callable[[Fact], None]
    watch: Callable[[LoopState], None]  # shown the state of the moment, at every turn
    status: Callable[[LoopState], dict]  # the answer to `status`
    ray: RayCalls
    pool: RolloutPool
    learner: LearnerGroup
    stepper: Stepper
    ledger: Ledger
    control: ControlLink
    checkpoints: CheckpointWriter
    evaluation: BackgroundEvaluation | None = None
    stop_signal: int | None = None

    def __post_init__(self) -> None:
        self._buffer = RolloutBuffer(self.recipe.buffer.max_bytes)
        self._intake = Intake(self.ledger, self._buffer, self.recipe.actors.images_per_ticket, self.tell)
        autoscale = self.recipe.actors.autoscale
        self._autoscaler = Autoscaler(autoscale) if autoscale else None
        self._untold_stop: StopAskedFor | None = None

    def run(self) -> None:
        """Until every step is done, or a signal asks to stop; either way with a checkpoint at the end."""
        counts, every = self.stepper.counts, self.recipe.checkpoint.every
        last_saved = counts.step
        while self._is_unfinished():
            self._tell_of_stop()
            if self.stop_signal is not None and self.stepper.running is None:
                break
            self._answer_requests()
            self._start_step()
            self._hand_out()
            self._wait()
            self._collect()
            if self._finish_step():
                self._start_evaluation()
                if counts.step % every == 0:
                    self._checkpoint()
                    last_saved = counts.step
            if self.evaluation is not None:
                self.evaluation.record()
            self.watch(self.state())
        if last_saved != counts.step:
            self._checkpoint()

    def stop(self, signal_number: int, by: str = "") -> None:
        """Finish the running step, then stop; for a signal handler, which tells nothing itself."""
        self.stop_signal = signal_number
        self._untold_stop = StopAskedFor(by)

    def status_now(self) -> dict[str, Any]:
        """The answer to `status`."""
        return self.status(self.state())

    def _is_unfinished(self) -> bool:
        evaluating = self.evaluation is not None and self.evaluation.is_running
        return evaluating or self.stepper.counts.step < self.recipe.learner.num_steps

    def _answer_requests(self) -> None:
        for request in self.control.exchange(self.status_now):
            if "scale" in request:
                self._scale(request["scale"], "asked for")
            elif "stop" in request:
                self.stop(signal.SIGTERM)
                self._tell_of_stop()

    def _tell_of_stop(self) -> None:
        asked, self._untold_stop = self._untold_stop, None
        if asked is not None:
            self.tell(asked)

    def _scale(self, count: int, reason: str) -> None:
        before = self.pool.num_wanted
        if count == before:
            return
        try:
            self.pool.resize(count)
        except TooManyActorsError as error:
            self.tell(ScaleRefused(count, str(error)))
        else:
            self.tell(Scaled(before, count, reason))

    def state(self) -> LoopState:
        counts = self.stepper.counts
        return LoopState(
            step=counts.step,
            policy_version=self.stepper.published.version,
            tickets_learned=self.ledger.num_learned,
            num_tickets=self.ledger.num_tickets,
            groups_learned=counts.groups_learned,
            images_skipped=counts.images_skipped,
            groups_buffered=self._buffer.num_groups,
            bytes_buffered=self._buffer.num_bytes,
            actors=self.pool.states(),
            actors_wanted=self.pool.num_wanted,
            actor_restarts=self.pool.num_restarts,
            actors_most=self.pool.most,
        )

    def _hand_out(self) -> None:
        """Give every free actor a chunk of a running evaluation or a ticket, while the ledger has slots."""
        if self.stop_signal is not None or not self.stepper.have_weights():
            return
        if self.evaluation is not None:
            self.evaluation.renew(self.stepper.published)
        for actor in self.pool.free_actors():
            chunk = self.evaluation.take(actor) if self.evaluation else None
            if chunk is not None:
                self.pool.submit_chunk(actor, *chunk)
                continue
            ticket = self.ledger.admit(actor)
            if ticket is None:
                return
            self.pool.submit(actor, ticket, self.stepper.published)

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
                if event.lost == "weights":
                    self.stepper.lose_weights(event.version)
                self._intake.lose_ticket(event)
            elif self.evaluation is not None:
                self._collect_chunk(event, self.evaluation)

    def _collect_chunk(self, event: ChunkDone | LostChunk, evaluation: BackgroundEvaluation) -> None:
        """A lost one is done again, unless it needs weights that the learner no longer has."""
        if isinstance(event, ChunkDone):
            evaluation.deliver(event.index, event.result)
            return
        self.tell(event.fact())
        evaluation.give_back(event.actor)
        if event.lost == "weights" and not self.stepper.lose_weights(event.version):
            evaluation.give_up()

    def _start_step(self) -> None:
        if self.stepper.running is None and self.stop_signal is None:
            taken = self._intake.take(self.stepper.published.version)
            if taken is not None:
                self.stepper.start(taken)

    def _finish_step(self) -> bool:
        """Whether the running step has ended, and its weights are published."""
        learned = self.stepper.finish(len(self.pool), self._buffer.num_groups)
        if learned is None:
            return False
        self.ledger.release(learned.tickets)
        self._autoscale(learned)
        return True

    def _autoscale(self, learned: StepLearned) -> None:
        if self._autoscaler is None:
            return
        stock = self.recipe.buffer.max_staleness * self.recipe.learner.images_per_step
        fill = self._buffer.num_groups / stock if stock else 0.0
        wait_share = learned.wait_seconds / max(learned.step_seconds, 1e-9)
        decision = self._autoscaler.after_step(wait_share, fill, len(self.pool), self.pool.num_wanted)
        if decision is not None:
            self._scale(*decision)

    def _start_evaluation(self) -> None:
        step, every = self.stepper.counts.step, self.recipe.evaluation.every
        if self.evaluation and every and step % every == 0 and step < self.recipe.learner.num_steps:
            self.evaluation.start(self.stepper.published)

    def _checkpoint(self) -> None:
        weights, optimizer = self.stepper.weights(), self.learner.optimizer_arrays()
        self.checkpoints.write(weights, optimizer, self.stepper.counts, self.ledger.state())
        self.stepper.idle_from_now()
