"""What the learner waits for between two steps: whether judges hold it up, by the second."""

from collections.abc import Iterator
from contextlib import contextmanager

from actors.actor_pool import ActorPool
from actors.judge_pool import JudgePool
from common.facts import StepLearned
from common.ray_calls_group import RayCalls
from deploy.service.autoscaler import StepWaits


class LearnerWaits:
    def __init__(self, pool: ActorPool, judges: JudgePool | None, ray: RayCalls):
        self._pool, self._judges, self._ray = pool, judges, ray
        self._for_judges = self._for_queue = 0.0

    @contextmanager
    def counted(self, learner_waits: bool) -> Iterator[None]:
        """Around each wait of the driver's loop, whose time is what it found at its start."""
        judges, began = self._judges, self._ray.clock()
        queue = judges.num_queued if judges is not None else 0
        alone = judges is not None and judges.is_busy and not self._pool.is_busy
        yield
        if learner_waits:
            seconds = self._ray.clock() - began
            self._for_judges += seconds if queue or alone else 0.0
            self._for_queue += seconds if queue else 0.0

    def of_step(self, learned: StepLearned) -> StepWaits:
        """Since the step before."""
        spans = learned.wait_seconds, self._for_judges, self._for_queue
        self._for_judges = self._for_queue = 0.0
        return StepWaits(*(span / max(learned.step_seconds, 1e-9) for span in spans))
