"""The driver's loop: hands out tickets, collects groups, steps the learner, publishes weights, checkpoints.

One thread. It only decides what comes next: the ledger knows the rules, the pool and the group do the work, and
the recorder is told what happened.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.actor_pool import ActorPool
from actors.judge_pool import JudgePool
from actors.pool_events import ChunkDone, Delivery, JudgeEvent, LostActor, LostTicket, RolledOut, UnjudgedChunk
from actors.pool_size import TooManyActorsError
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import RolloutBuffer
from common.config.recipe import Recipe
from common.facts import Fact, StepLearned
from common.judge_facts import JudgesNotScaled, JudgesScaled
from common.ray_calls_group import RayCalls
from common.request_facts import Scaled, ScaleRefused, StopAskedFor
from deploy.runs.status import JudgesState, LoopState
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.service.autoscaler import ActorAutoscaler, JudgeAutoscaler
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.intake import Intake
from deploy.service.learner_waits import LearnerWaits
from deploy.service.stepper import Stepper
from learner.learner_group import LearnerGroup
from learner.rank_group import A_RANK_IS_LOST

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
    judges: JudgePool | None = None  # where the reward is measured apart
    stop_signal: int | None = None

    def __post_init__(self) -> None:
        self._buffer = RolloutBuffer(self.recipe.buffer.max_bytes)
        self._intake = Intake(self.ledger, self._buffer, self.recipe.actors.images_per_ticket, self.tell)
        actors, judges = self.recipe.actors.autoscale, self.recipe.reward.actors.autoscale
        self._autoscaler = ActorAutoscaler(actors) if actors else None
        self._judge_autoscaler = JudgeAutoscaler(judges) if judges else None
        self._waits = LearnerWaits(self.pool, self.judges, self.ray)
        self._untold_stop: StopAskedFor | None = None
        self._is_colocated = self.recipe.placement == "colocated"
        self._saved = self._evaluated = self.stepper.counts.step
        self._must_save_again = False

    def run(self) -> None:
        """Until every step is done, or a signal asks to stop; either way with a checkpoint at the end."""
        while self._is_unfinished():
            self.tell_of_stop()
            self._answer_requests()
            self._checkpoint()
            self._start_step()
            self._hand_out()
            with self._waits.counted(learner_waits=self.stepper.running is None):
                self._wait()
            self._collect()
            self._finish_step()
            self._finish_publication()
            if self.evaluation is not None:
                self.evaluation.record()
            self.watch(self.state())

    def stop(self, signal_number: int, by: str = "") -> None:
        """Finish the running step, then stop; for a signal handler, which tells nothing itself."""
        self.stop_signal = signal_number
        self._untold_stop = StopAskedFor(by)

    def status_now(self) -> dict[str, Any]:
        """The answer to `status`."""
        return self.status(self.state())

    def _is_unfinished(self) -> bool:
        if self.stepper.running is not None or self.checkpoints.is_busy or self._must_save:
            return True
        if self.stop_signal is not None:
            return False
        evaluating = self.evaluation is not None and self.evaluation.is_running
        return evaluating or self.stepper.is_publishing or not self._is_trained

    @property
    def _is_trained(self) -> bool:
        return self.stepper.counts.step >= self.recipe.learner.num_steps

    @property
    def _must_save(self) -> bool:
        """Whether a checkpoint of the newest step is due; no other step begins before its state is asked for."""
        step = self.stepper.counts.step
        is_last = self.stop_signal is not None or self._is_trained
        is_due = step != self._saved and (is_last or step % self.recipe.checkpoint.every == 0)
        return is_due or self._must_save_again

    def _answer_requests(self) -> None:
        for request in self.control.exchange(self.status_now):
            if "scale" in request:
                self._scale(request["scale"], "asked for")
            elif "scale_judges" in request:
                self._scale_judges(request["scale_judges"], "asked for")
            elif "stop" in request:
                self.stop(signal.SIGTERM)
                self.tell_of_stop()

    def tell_of_stop(self) -> None:
        """Once: that it was asked for."""
        asked, self._untold_stop = self._untold_stop, None
        if asked is not None:
            self.tell(asked)

    def _scale(self, count: int, reason: str) -> None:
        self._resize(self.pool, count, reason, Scaled, ScaleRefused)

    def _scale_judges(self, count: int, reason: str) -> None:
        assert self.judges is not None, "`scale` and recipes refuse it for a run without"
        self._resize(self.judges, count, reason, JudgesScaled, JudgesNotScaled)

    def _resize(
        self,
        pool: ActorPool,
        count: int,
        reason: str,
        scaled: Callable[[int, int, str], Fact],
        refused: Callable[[int, str], Fact],
    ) -> None:
        before = pool.num_wanted
        if count == before:
            return
        try:
            pool.resize(count)
        except TooManyActorsError as error:
            self.tell(refused(count, str(error)))
        else:
            self.tell(scaled(before, count, reason))

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
            judges=JudgesState.of(self.judges),
        )

    def _hand_out(self) -> None:
        """Give every free actor a chunk of a running evaluation or a ticket, while the ledger has slots."""
        if self.stop_signal is not None or not self.stepper.have_weights():
            return
        if self._is_colocated and self._must_save:
            return  # the rank that is asked for its state would roll out first
        if (evaluation := self.evaluation) is not None:
            evaluation.renew(self.stepper.published)
        if self.judges is not None and self.judges.has_chunks_waiting:
            evaluation = None  # their pictures are not to pile up
        for actor in self.pool.free_actors(self.stepper.published):
            if evaluation is not None and (chunk := evaluation.take(actor)) is not None:
                self.pool.submit_chunk(actor, *chunk)
                continue
            ticket = self.ledger.admit(actor)
            if ticket is None:
                return
            self.pool.submit(actor, ticket, self.stepper.published)

    def _wait(self) -> None:
        references = [
            *self.pool.waiting_for(),
            *(self.judges.waiting_for() if self.judges is not None else ()),
            *self.stepper.waiting_for(),
            *self.checkpoints.waiting_for(),
        ]
        if references:
            self.ray.ready(references, timeout=POLL_SECONDS)
        elif self.checkpoints.is_busy:  # a thread alone is at work
            self.checkpoints.wait(POLL_SECONDS)
        elif self.evaluation is not None and self.evaluation.is_running:
            self.evaluation.wait(POLL_SECONDS)

    def _collect(self) -> None:
        for event in self.pool.collect():
            if isinstance(event, LostActor):
                self._intake.lose_actor(event)
                if self.evaluation is not None:
                    self.evaluation.give_back(event.actor)
            elif isinstance(event, RolledOut | UnjudgedChunk):
                self._pass_on(event)
            else:
                self._collect_end(event)
        for judged in self.judges.collect() if self.judges is not None else ():
            self._collect_end(judged)

    def _pass_on(self, event: RolledOut | UnjudgedChunk) -> None:
        """Have judges complete it; a ticket, if it is still its actor's own."""
        assert self.judges is not None, "its actor has the recipe of this run"
        if isinstance(event, UnjudgedChunk):
            assert self.evaluation is not None, "chunks are its own"
            self.evaluation.pass_on(event.index)
        elif not self._intake.pass_on(event):
            return
        self.judges.add(event)

    def _collect_end(self, event: JudgeEvent) -> None:
        """What is lost is done again; a chunk unless it needs weights that the learner no longer has."""
        are_gone = False
        if not isinstance(event, Delivery | ChunkDone) and event.lost == "weights":
            are_gone = not self.stepper.lose_weights(event.version)
        if isinstance(event, Delivery):
            self._intake.deliver(event)
            return
        if isinstance(event, LostTicket):
            self._intake.lose_ticket(event)
            return
        assert self.evaluation is not None, "chunks are its own"
        if isinstance(event, ChunkDone):
            self.evaluation.deliver(event.index, event.result)
            return
        self.tell(event.fact())
        self.evaluation.redo(event.index)
        if are_gone:
            self.evaluation.give_up()

    def _start_step(self) -> None:
        if self._is_colocated and self.evaluation is not None and self.evaluation.is_running:
            return  # ranks score the policy that they have
        if self.stepper.running is None and self.stop_signal is None and not self._must_save:
            taken = self._intake.take(self.stepper.counts.step)
            if taken is not None:
                self.stepper.start(taken)

    def _finish_step(self) -> None:
        learned = self.stepper.finish(len(self.pool), self._buffer.num_groups, len(self.judges or ()))
        if learned is not None:
            self.ledger.learn(learned.tickets)
            self._autoscale(learned)

    def _finish_publication(self) -> None:
        """Where a version is published: reopen the slots of what it has learned from."""
        if self.stepper.collect_publication():
            self.ledger.release()
            self.pool.fetch_ahead(self.stepper.published)
            self._start_evaluation()

    def _autoscale(self, learned: StepLearned) -> None:
        waits = self._waits.of_step(learned)
        if self._autoscaler is not None:
            stock = self.recipe.buffer.max_staleness * self.recipe.learner.images_per_step
            fill = self._buffer.num_groups / stock if stock else 0.0
            decision = self._autoscaler.after_step(waits, fill, len(self.pool), self.pool.num_wanted)
            if decision is not None:
                self._scale(*decision)
        if self._judge_autoscaler is not None and self.judges is not None:
            busy, wanted = learned.judge_seconds / max(learned.step_seconds, 1e-9), self.judges.num_wanted
            decision = self._judge_autoscaler.after_step(waits, busy, len(self.judges), wanted)
            if decision is not None:
                self._scale_judges(*decision)

    def _start_evaluation(self) -> None:
        version, every = self.stepper.published.version, self.recipe.evaluation.every
        if self.evaluation and every and version // every > self._evaluated // every and not self._is_trained:
            self._evaluated = version
            self.evaluation.start(self.stepper.published)

    def _checkpoint(self) -> None:
        """Go on with the one in flight, and begin one that is due; one that was lost is begun again."""
        try:
            if not self.checkpoints.advance():
                self._must_save_again = True
        except A_RANK_IS_LOST:
            self._must_save_again = True
            if self.stepper.running is None:  # else the step that runs finds out
                self.learner.recover()
        if self._must_save and not self.checkpoints.is_busy and self.stepper.running is None:
            self._saved, self._must_save_again = self.stepper.counts.step, False
            self.checkpoints.begin(self.stepper.counts, self.ledger.state())
