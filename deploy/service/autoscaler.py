"""How many reward actors and judge actors a run should have, seen from what its learner waits for. Pure.

An actor more where the learner starves for it, one less where there are too many and the learner hardly waits. A
verdict counts only when several steps in a row say the same, and after a decision none counts before the actors
that it asked for are there.
"""

from dataclasses import dataclass

from common.config.service import AutoscaleSection

STARVING = 0.2  # share of a step that the learner waits: above it, actors are too few
SATED = 0.02  # below it, and with a buffer this full, they are too many
FULL = 0.8
IDLE = 0.5  # share of the time that judges are at work: below it without one of them, they are too many

Decision = tuple[int, str] | None  # the number to have from now on, and why; None: to leave it


@dataclass(frozen=True)
class StepWaits:
    """What the learner waited for, as shares of a step."""

    all: float  # for groups
    judges: float = 0.0  # of that, while judges alone could go on, or a ticket waited for one
    queue: float = 0.0  # of that, while a ticket waited for one: another judge would have taken it


@dataclass
class _Autoscaler:
    section: AutoscaleSection
    _verdict: int = 0  # 1 more, -1 fewer, 0 as it is
    _num_agreeing: int = 0  # steps in a row that say so

    def _decide(self, verdict: int, reason: str, ready: int, wanted: int) -> Decision:
        self._num_agreeing = self._num_agreeing + 1 if verdict == self._verdict else 1
        self._verdict = verdict
        count = min(max(wanted + verdict, self.section.min), self.section.max)
        if ready != wanted or self._num_agreeing < self.section.patience or count == wanted:
            return None
        self._num_agreeing = 0
        return count, reason

    def _waited(self, share: float) -> str:
        return f"the learner waited {share:.0%} of each of {self.section.patience} steps"


class ActorAutoscaler(_Autoscaler):
    def after_step(self, waits: StepWaits, fill: float, ready: int, wanted: int) -> Decision:
        """While judges hold the learner up, that it waits is no reason for more reward actors.

        `fill` is how full the room of the buffer beyond one step is (0 where max_staleness is 0: there nothing can
        be made in stock).
        """
        if (for_actors := waits.all - waits.judges) > STARVING:
            return self._decide(1, self._waited(for_actors), ready, wanted)
        reason = f"{self._waited(waits.all)}, and the buffer was {fill:.0%} full"
        return self._decide(-1 if waits.all < SATED and fill > FULL else 0, reason, ready, wanted)


class JudgeAutoscaler(_Autoscaler):
    def after_step(self, waits: StepWaits, busy: float, ready: int, wanted: int) -> Decision:
        """`busy` is how many judges the step's tickets would have kept at work all the time."""
        if waits.queue > STARVING:
            return self._decide(1, f"{self._waited(waits.queue)} while tickets waited for a judge", ready, wanted)
        reason = f"{self._waited(waits.all)}, and judges were at work {busy / wanted:.0%} of the time"
        is_idle = busy < IDLE * (wanted - 1)
        return self._decide(-1 if waits.all < SATED and is_idle else 0, reason, ready, wanted)
