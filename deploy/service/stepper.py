"""The learner's side of the driver's loop: steps it, publishes what it learned, and tells of both."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.pool_events import PublishedPolicy
from common.buffer.rollout_buffer import BufferedTicket
from common.facts import Fact, GroupsQuarantined, Published, RewardsFlat, StepLearned, StepSkipped
from common.ray_calls_group import RayCalls
from common.types import GroupReceipt, StepReport
from learner.learner_group import Asked, LearnerGroup
from learner.rank_group import A_RANK_IS_LOST

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


@dataclass(frozen=True)
class Publication:
    """A version on its way."""

    version: int
    asked: Asked | None  # None where no weights travel
    asked_at: float


class Stepper:
    def __init__(
        self,
        tell: Callable[[Fact], None],
        ray: RayCalls,
        learner: LearnerGroup,
        published: PublishedPolicy,
        counts: Counts,
        keep_groups: KeepGroups | None = None,
        weights_travel: Callable[[], bool] = lambda: True,
    ):
        """`weights_travel` says whether any actor has to fetch a version to roll out with it."""
        self._weights_travel = weights_travel
        self.published, self.counts = published, counts
        self.running: RunningStep | None = None
        self._tell, self._ray, self._learner, self._keep_groups = tell, ray, learner, keep_groups
        self._coming: Publication | None = None
        self._must_publish = False  # a version was lost on its way
        self._weights_are_lost = False  # no actor can pull the published version
        self._idle_since = self._last_end = ray.clock()

    def waiting_for(self) -> list[Any]:
        """References that become ready when `finish` or `collect_publication` has something to do."""
        if self._coming is not None and self._coming.asked is not None:
            return [self._coming.asked.told]
        return self._learner.waiting_for()

    def start(self, taken: list[BufferedTicket]) -> None:
        """Begin to learn from these tickets."""
        self.counts.images_skipped += sum(len(ticket.receipt.skipped) for ticket in taken)
        self._learner.start_step([(t.groups, t.receipt.num_groups) for t in taken if t.receipt.num_groups])
        tables = [ticket.table for ticket in taken if ticket.table is not None]
        if self._keep_groups is not None and tables:
            self._keep_groups(self.counts.step + 1, tables)
        self.running = RunningStep(taken, self.counts.step, self._ray.clock() - self._idle_since)

    def finish(self, num_actors: int, groups_buffered: int, num_judges: int = 0) -> StepLearned | None:
        """Tell of the running step if it has ended, and begin to publish what it learned.

        One publication is on its way at a time. `num_actors` and `num_judges` are ready, `groups_buffered` wait.
        """
        running = self.running
        if running is None or self._coming is not None:
            return None
        if not self._ray.ready(self._learner.waiting_for()) and not self._learner.is_overdue:
            return None
        self.running = None
        report = self._learner.finish_step()
        self.counts.step = report.step
        self.counts.groups_learned += report.num_groups
        now = self._ray.clock()
        self._publish()
        learned = StepLearned(
            report=report,
            policy_version=report.step,
            tickets=running.ids,
            staleness=running.staleness,
            num_actors=num_actors,
            groups_buffered=groups_buffered,
            step_seconds=now - self._last_end,
            wait_seconds=running.wait_seconds,
            actor_stage_seconds=running.actor_stage_seconds(),
            num_judges=num_judges,
            judge_seconds=sum(receipt.judge_seconds for receipt in running.receipts),
        )
        self._last_end = self._idle_since = now
        self._tell(learned)
        self._tell_troubles(report)
        return learned

    def collect_publication(self) -> bool:
        """Whether a newer version, or a lost one again, can now be fetched by actors."""
        coming = self._coming
        if coming is None:
            if (self._must_publish or self._weights_are_lost) and self.running is None:
                self._publish()
            return False
        try:
            num_bytes = self._learner.answer(coming.asked) if coming.asked else 0
        except A_RANK_IS_LOST:
            self._coming, self._must_publish = None, True
            if self.running is None:  # else the step that runs finds out, and its end publishes
                self._learner.recover()
            return False
        if num_bytes is None:
            return False
        self._coming, self._weights_are_lost = None, False
        self.published = PublishedPolicy(coming.version, coming.asked.value if coming.asked else None)
        self._tell(Published(coming.version, self._ray.clock() - coming.asked_at, num_bytes))
        return True

    @property
    def is_publishing(self) -> bool:
        """Whether what was learned is not published yet."""
        return self._coming is not None or self._must_publish

    def _publish(self) -> None:
        """Policy version n is what n optimizer steps made."""
        version, now = self.counts.step, self._ray.clock()
        self._must_publish = False
        asked = self._learner.publish(version) if self._weights_travel() else None
        self._coming = Publication(version, asked, now)

    def lose_weights(self, version: int) -> bool:
        """Note that no node has the weights of `version` any more; whether they are those to pull now.

        They are published again between two steps.
        """
        is_current = version == self.published.version
        self._weights_are_lost |= is_current
        return is_current

    def have_weights(self) -> bool:
        """Whether actors can pull the published version."""
        return not self._weights_are_lost

    def _tell_troubles(self, report: StepReport) -> None:
        if report.is_bad:
            self._tell(StepSkipped(report.step, str(report.grad_norm)))
        if report.num_quarantined:
            self._tell(GroupsQuarantined(report.step, report.num_quarantined))
        if report.num_flat:
            self._tell(RewardsFlat.of(report))
