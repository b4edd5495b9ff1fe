"""How many reward actors a run should have, seen from what its learner waits for. Pure, with hysteresis.

An actor more where the learner starves, one less where the buffer stays full and the learner hardly waits. A
verdict counts only when several steps in a row say the same, and after a decision none counts before the
actors that it asked for are there.
"""

from dataclasses import dataclass

from common.config.service import AutoscaleSection

STARVING = 0.2  # share of a step that the learner waits: above it, actors are too few
SATED = 0.02  # below it, and with a buffer this full, they are too many
FULL = 0.8


@dataclass
class Autoscaler:
    section: AutoscaleSection
    _verdict: int = 0  # 1 more, -1 fewer, 0 as it is
    _num_agreeing: int = 0  # steps in a row that say so

    def after_step(self, wait_share: float, fill: float, ready: int, wanted: int) -> tuple[int, str] | None:
        """The number of actors to have from now on, and why; None to leave it.

        `wait_share` is the part of the step that the learner waited for groups, `fill` how full the room of
        the buffer beyond one step is (0 where max_staleness is 0: there nothing can be made in stock).
        """
        verdict = 1 if wait_share > STARVING else -1 if wait_share < SATED and fill > FULL else 0
        self._num_agreeing = self._num_agreeing + 1 if verdict == self._verdict else 1
        self._verdict = verdict
        count = min(max(wanted + verdict, self.section.min), self.section.max)
        if ready != wanted or self._num_agreeing < self.section.patience or count == wanted:
            return None
        self._num_agreeing = 0
        reason = f"the learner waited {wait_share:.0%} of each of {self.section.patience} steps"
        return count, reason if verdict > 0 else f"{reason}, and the buffer was {fill:.0%} full"
