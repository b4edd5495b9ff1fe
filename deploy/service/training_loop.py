"""The driver's loop: hands out tickets, collects groups, steps the learner, publishes weights, checkpoints.

One thread. It only decides what comes next; the ledger knows the rules, the pool and the group do the work.
"""

import signal
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

import ray

from actors.pool_events import Delivery, Loss, LostTicket, Published, Scored
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import BufferedTicket, RolloutBuffer
from common.config.recipe import Recipe
from common.log import log_context
from common.types import GroupReceipt, StepReport
from deploy.runs.measurements import Measurements
from deploy.runs.pace import Pace, last_checkpoint
from deploy.runs.progress_line import RECENT_STEPS, ProgressLine, service_text
from deploy.runs.run_folder import RunFolder
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.service.autoscaler import Autoscaler
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.running_step import RunningStep
from learner.checkpoint import CheckpointState
from learner.learner_group import LearnerGroup

POLL_SECONDS = 0.5


@dataclass
class Progress:
    """Where the run is; what a checkpoint keeps of it."""

    step: int = 0
    version: int = 0
    groups_learned: int = 0
    images_skipped: int = 0


@dataclass
class TrainingLoop:
    recipe: Recipe
    folder: RunFolder
    pool: RolloutPool
    learner: LearnerGroup
    ledger: Ledger
    measurements: Measurements
    progress_line: ProgressLine
    published: Published
    control: ControlLink
    checkpoints: CheckpointWriter
    evaluation: BackgroundEvaluation | None = None
    progress: Progress = field(default_factory=Progress)
    stop_signal: int | None = None  # set by a signal handler: finish the running step, then stop
    _idle_since: float = field(default_factory=time.monotonic)
    _last_publication: float = field(default_factory=time.monotonic)
    _running: RunningStep | None = None
    _weights_are_lost: bool = False  # no actor can pull the published version
    _last_line: dict[str, Any] = field(default_factory=dict)
    _recent_lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    _pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.buffer = RolloutBuffer(self.recipe.buffer.max_bytes)
        autoscale = self.recipe.actors.autoscale
        self._autoscaler = Autoscaler(autoscale) if autoscale else None

    def run(self) -> None:
        """Until every step is done, or a signal asks to stop; either way with a checkpoint at the end."""
        last_saved = self.progress.step
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
                if self.progress.step % self.recipe.checkpoint.every == 0:
                    self._checkpoint()
                    last_saved = self.progress.step
            if self.evaluation is not None:
                self.evaluation.record()
            self.measurements.state(self.ledger, self.buffer, len(self.pool))
        if last_saved != self.progress.step:
            self._checkpoint()

    def _is_unfinished(self) -> bool:
        evaluating = self.evaluation is not None and self.evaluation.is_running
        return evaluating or self.progress.step < self.recipe.learner.num_steps

    def _answer_requests(self) -> None:
        for request in self.control.exchange(self._status):
            if "scale" in request:
                self._scale(request["scale"], "asked for")
            elif "stop" in request:
                self.folder.event("stop_asked_for")
                self.stop_signal = signal.SIGTERM

    def _scale(self, count: int, reason: str) -> None:
        before = self.pool.num_wanted
        if count != before:
            self.pool.resize(count)
            self.measurements.wanted(count)
            self.folder.event("scaled", before=before, after=count, reason=reason)

    def _status(self) -> dict[str, Any]:
        return {
            "run": self.recipe.run.name,
            "step": self.progress.step,
            "num_steps": self.recipe.learner.num_steps,
            "policy_version": self.published.version,
            "eta_seconds": self._pace.eta_seconds(self.recipe.learner.num_steps - self.progress.step),
            "actors": self._pace.actors(self.pool.states()),
            "actors_wanted": self.pool.num_wanted,
            "groups_buffered": self.buffer.num_groups,
            "buffer_capacity": self.recipe.buffer_capacity,
            "last_checkpoint": last_checkpoint(self.folder.checkpoints),
            "recent_events": list(self.folder.recent_events),
            "groups_learned": self.progress.groups_learned,
            "images_skipped": self.progress.images_skipped,
            "actor_restarts": self.pool.num_restarts,
            "last_step": self._last_line,
        }

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
            self.published = Published(self.published.version, self.learner.snapshot(self.published.version))
            self._weights_are_lost = False
        return not self._weights_are_lost

    def _wait(self) -> None:
        references = [*self.pool.waiting_for(), *self.learner.waiting_for()]
        if references:
            # Waiting fetches: groups come to this node, to outlive the one that made them; the rest is small.
            ray.wait(references, timeout=POLL_SECONDS)
        elif self.evaluation is not None:  # its thread alone is at work
            time.sleep(POLL_SECONDS)

    def _collect(self) -> None:
        for event in self.pool.collect():
            if isinstance(event, Loss):
                self._lost(event)
            elif isinstance(event, Scored) and self.evaluation is not None:
                self.evaluation.deliver(event.index, event.result)
            elif isinstance(event, Delivery):
                self._delivered(event)
            elif isinstance(event, LostTicket):
                self._lost_ticket(event)

    def _delivered(self, delivery: Delivery) -> None:
        receipt = delivery.receipt
        if not self.ledger.deliver(receipt.ticket_id, delivery.actor, receipt.policy_version):
            self.measurements.refused()
            self.folder.event("result_refused", actor=delivery.actor, ticket=receipt.ticket_id)
            return
        self.buffer.put(BufferedTicket(receipt, delivery.groups, delivery.table))
        self.measurements.delivered(receipt)
        self._pace.delivered(delivery.actor, receipt)

    def _lost_ticket(self, event: LostTicket) -> None:
        if event.lost == "weights" and event.version == self.published.version:
            self._weights_are_lost = True
        if self.ledger.deliver(event.ticket_id, event.actor, event.version):
            self.ledger.discard([event.ticket_id])
            self.measurements.dropped("lost", self.recipe.actors.images_per_ticket)
            self.folder.event("ticket_dropped", ticket=event.ticket_id, reason=f"{event.lost} lost with a node")

    def _lost(self, loss: Loss) -> None:
        tickets = self.ledger.revoke(loss.actor)
        if self.evaluation is not None:
            self.evaluation.give_back(loss.actor)
        self.folder.event("actor_lost", actor=loss.actor, reason=loss.reason, tickets=tickets)
        self.measurements.actor_lost()

    def _start_step(self) -> None:
        if self._running is not None or self.stop_signal is not None:
            return
        version = self.published.version
        stale = self.ledger.stale(version)
        for ticket_id in stale:
            dropped = self.buffer.pop(ticket_id).receipt
            self.measurements.dropped("stale", dropped.num_groups)
            self.folder.event("ticket_dropped", ticket=ticket_id, reason="stale", version=dropped.policy_version)
        self.ledger.discard(stale)
        tickets = self.ledger.take(version)
        if tickets is None:
            return
        taken = [self.buffer.pop(ticket_id) for ticket_id in tickets]
        self._note_skipped([ticket.receipt for ticket in taken])
        self.learner.start_step([(t.groups, t.receipt.num_groups) for t in taken if t.receipt.num_groups])
        wait_seconds = time.monotonic() - self._idle_since
        self._running = RunningStep(taken, version, wait_seconds)

    def _note_skipped(self, receipts: list[GroupReceipt]) -> None:
        """Images that no group was made of, named once they are accounted for."""
        for receipt in receipts:
            for image in receipt.skipped:
                self.folder.event("image_skipped", **asdict(image))
                if image.is_quarantined:
                    self.measurements.quarantined(1)
                else:
                    self.measurements.skipped()
                self.progress.images_skipped += 1

    def _finish_step(self) -> bool:
        """Publish the running step's weights if it has ended; whether it had."""
        if self._running is None:
            return False
        done, _ = ray.wait(self.learner.waiting_for(), timeout=0)
        if not done:
            return False
        running, self._running = self._running, None
        report = self.learner.finish_step()
        self._publish(report.step)
        self.ledger.release(running.ids)
        self._record(report, running)
        return True

    def _publish(self, step: int) -> None:
        start = time.monotonic()
        version = self.published.version + 1
        self.published = Published(version, self.learner.snapshot(version))
        self._weights_are_lost = False
        self.measurements.publication(time.monotonic() - start)
        log_context(step=step)
        self.progress.step, self.progress.version = step, version

    def _record(self, report: StepReport, running: RunningStep) -> None:
        now = time.monotonic()
        step_seconds, self._last_publication, self._idle_since = now - self._last_publication, now, now
        self.progress.groups_learned += report.num_groups
        staleness = running.staleness
        line: dict[str, Any] = {
            **asdict(report),
            "policy_version": self.published.version,
            "staleness_max": max(staleness),
            "staleness_mean": sum(staleness) / len(staleness),
            "num_actors": len(self.pool),
            "groups_buffered": self.buffer.num_groups,
            "step_seconds": step_seconds,
            "wait_seconds": running.wait_seconds,
            "actor_stage_seconds": running.actor_stage_seconds(),
        }
        self._last_line = line
        self._pace.learned(step_seconds)
        if report.is_bad:
            self.folder.event("step_skipped", step=report.step, grad_norm=str(report.grad_norm))
        if report.num_quarantined:
            self.folder.event("groups_quarantined", step=report.step, num_groups=report.num_quarantined)
            self.measurements.quarantined(report.num_quarantined)
        self.folder.metrics(line)
        self.folder.event("step_learned", step=report.step, tickets=running.ids)
        self.measurements.learned(report, staleness, step_seconds, running.wait_seconds, self.published.version)
        self._recent_lines.append(line)
        self.progress_line.show(service_text(self._recent_lines, self.recipe.learner.num_steps))
        if self._autoscaler is not None:
            self._autoscale(self._autoscaler, running.wait_seconds / step_seconds)

    def _autoscale(self, autoscaler: Autoscaler, wait_share: float) -> None:
        stock = self.recipe.buffer.max_staleness * self.recipe.learner.images_per_step
        fill = self.buffer.num_groups / stock if stock else 0.0
        decision = autoscaler.after_step(wait_share, fill, len(self.pool), self.pool.num_wanted)
        if decision is not None:
            self._scale(*decision)

    def _start_evaluation(self) -> None:
        step, every = self.progress.step, self.recipe.evaluation.every
        if self.evaluation and every and step % every == 0 and step < self.recipe.learner.num_steps:
            self.evaluation.start(self.published)

    def _checkpoint(self) -> None:
        start = time.monotonic()
        progress = self.progress
        state = CheckpointState(
            step=progress.step,
            version=progress.version,
            ledger=self.ledger.state(),
            groups_learned=progress.groups_learned,
            images_skipped=progress.images_skipped,
            recipe=self.recipe.model_dump(mode="json"),
        )
        snapshot = ray.get(self.published.snapshot)
        self.checkpoints.write(snapshot, self.learner.optimizer_arrays(), state)
        self.measurements.checkpointed(progress.step, time.monotonic() - start)
        self._idle_since = time.monotonic()
