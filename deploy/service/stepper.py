"""The learner's side of the driver's loop: steps it, publishes what it learned, and tells of both."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.pool_events import PublishedPolicy
from common.buffer.rollout_buffer import BufferedTicket
from common.facts import Fact, GroupsQuarantined, Published, RewardsFlat, StepLearned, StepSkipped
from common.ray_calls_group import ProcessLostError, RayCalls, ValueLostError
from common.types import GroupReceipt, StepReport, WeightSnapshot
from learner.learner_group import LearnerGroup

KeepGroups = Callable[[int, list[Any]], None]  # given a step and the Arrow tables that it learns from


@dataclass
class Counts:
    """Where the run is; what a checkpoint keeps of it."""

    step: int = 0
    groups_learned: int = 0
    images_skipped: int = 0


@dataclass(frozen=True)
class RunningStep:
    """The tickets that the learner learns from, and what they say together."""

    tickets: list[BufferedTicket]
    version: int  # of the learner when it took them
    wait_seconds: float  # that the learner had waited for them

    @property
    def ids(self) -> list[int]:
        return [receipt.ticket_id for receipt in self.receipts]

    @property
    def receipts(self) -> list[GroupReceipt]:
        return [ticket.receipt for ticket in self.tickets]

    @property
    def staleness(self) -> list[int]:
        """Of each ticket that has groups."""
        return [self.version - receipt.policy_version for receipt in self.receipts if receipt.num_groups]

    def actor_stage_seconds(self) -> dict[str, float]:
        """The actors' seconds by stage, over all tickets."""
        sums: Counter[str] = Counter()
        for receipt in self.receipts:
            sums.update(receipt.stage_seconds)
        return dict(sums)


class Stepper:
    def __init__(
        self,
        tell: Callable[[Fact], None],
        ray: RayCalls,
        learner: LearnerGroup,
        published: PublishedPolicy,
        counts: Counts,
        keep_groups: KeepGroups | None = None,
    ):
        self.published, self.counts = published, counts
        self.running: RunningStep | None = None
        self._tell, self._ray, self._learner, self._keep_groups = tell, ray, learner, keep_groups
        self._weights_are_lost = False  # no actor can pull the published version
        self._idle_since = self._last_publication = ray.clock()

    def start(self, taken: list[BufferedTicket]) -> None:
        """Begin to learn from these tickets."""
        self.counts.images_skipped += sum(len(ticket.receipt.skipped) for ticket in taken)
        self._learner.start_step([(t.groups, t.receipt.num_groups) for t in taken if t.receipt.num_groups])
        tables = [ticket.table for ticket in taken if ticket.table is not None]
        if self._keep_groups is not None and tables:
            self._keep_groups(self.counts.step + 1, tables)
        self.running = RunningStep(taken, self.published.version, self._ray.clock() - self._idle_since)

    def finish(self, num_actors: int, groups_buffered: int) -> StepLearned | None:
        """Publish and tell of the running step if it has ended.

        `num_actors` are ready, and `groups_buffered` wait.
        """
        running = self.running
        if running is None:
            return None
        if not self._ray.ready(self._learner.waiting_for()) and not self._learner.is_overdue:
            return None
        self.running = None
        report = self._learner.finish_step()
        self.counts.step = report.step
        self.counts.groups_learned += report.num_groups
        self.publish()
        now = self._ray.clock()
        learned = StepLearned(
            report=report,
            policy_version=self.published.version,
            tickets=running.ids,
            staleness=running.staleness,
            num_actors=num_actors,
            groups_buffered=groups_buffered,
            step_seconds=now - self._last_publication,
            wait_seconds=running.wait_seconds,
            actor_stage_seconds=running.actor_stage_seconds(),
        )
        self._last_publication = self._idle_since = now
        self._tell(learned)
        self._tell_troubles(report)
        return learned

    def publish(self) -> None:
        """Policy version n is what n optimizer steps made."""
        start, version = self._ray.clock(), self.counts.step
        self.published = PublishedPolicy(version, self._learner.snapshot(version))
        self._weights_are_lost = False
        self._tell(Published(version, self._ray.clock() - start))

    def lose_weights(self, version: int) -> bool:
        """Note that no node has the weights of `version` any more; whether they are those to pull now."""
        is_current = version == self.published.version
        self._weights_are_lost |= is_current
        return is_current

    def have_weights(self) -> bool:
        """Whether actors can pull the published version. Lost weights are published again between two steps."""
        if self._weights_are_lost and self.running is None:
            self.publish()
        return not self._weights_are_lost

    def weights(self) -> WeightSnapshot:
        """The published weights themselves, published again where they were lost."""
        try:
            return self._ray.get(self.published.snapshot)
        except (ValueLostError, ProcessLostError):
            self.publish()
            return self._ray.get(self.published.snapshot)

    def idle_from_now(self) -> None:
        """What came between, such as a checkpoint, was no wait for groups."""
        self._idle_since = self._ray.clock()

    def _tell_troubles(self, report: StepReport) -> None:
        if report.is_bad:
            self._tell(StepSkipped(report.step, str(report.grad_norm)))
        if report.num_quarantined:
            self._tell(GroupsQuarantined(report.step, report.num_quarantined))
        if report.num_flat:
            self._tell(RewardsFlat.of(report))
