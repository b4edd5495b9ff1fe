"""The learner's ranks as one: steps them together, and does a step again that a dying rank broke off."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.config.recipe import Recipe
from common.errors import ClusterError, DivergedError
from common.facts import Fact
from common.ray_calls_group import NoAnswerError, RayCalls
from common.types import StepReport
from learner.checkpoint import Checkpoint
from learner.learner_actor import LearnerActor, RankDescription, RankReport
from learner.rank_group import A_RANK_IS_LOST, POLL_SECONDS, RankGroup
from learner.shares import share
from learner.step_sums import StepSums

DIGEST_SECONDS = 60.0  # that a rank may take over the digest of its weights


@dataclass(frozen=True)
class Asked:
    """Something large that the first rank was asked for. It stays where it is until somebody gets it."""

    told: Any  # reference to a small answer that is there when the value is
    value: Any  # reference
    deadline: float  # on the port's clock


class LearnerGroup:
    def __init__(
        self,
        recipe: Recipe,
        tell: Callable[[Fact], None],
        ray: RayCalls,
        actor_class: type[LearnerActor] = LearnerActor,
    ):
        """Ask for the ranks; they load in parallel.

        `tell` hears of ranks that join, wait for room or are lost. Every method that waits for ranks may raise
        LearnerLostError where none is left, and ClusterError after more losses than learner.max_restarts.
        """
        self._recipe = recipe
        self._ray = ray
        self._on_wait: Callable[[], None] = lambda: None
        self._ranks = RankGroup(recipe, tell, ray, actor_class)
        self._tables: list[tuple[Any, int]] = []  # of the running step: what it takes to do it again
        self._running: list[Any] = []  # references
        self._deadline = math.inf  # of the running step
        self._step = 0
        self._num_bad_steps = 0  # in a row

    def wait_ready(self, timeout_seconds: float, on_wait: Callable[[], None]) -> None:
        """Wait for every rank, then form the process group. Raises ClusterError, or a rank's own error.

        `on_wait` is called now and then in this and later waits.
        """
        self._on_wait = on_wait
        self._ranks.wait_ready(timeout_seconds, on_wait)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint on every rank."""
        step = checkpoint.state.step
        optimizer, weights = self._ray.put(dict(checkpoint.optimizer)), self._ray.put(checkpoint.weights)
        try:
            self._ray.get([rank.resume.remote(step, optimizer, weights) for rank in self._ranks.actors])
        except A_RANK_IS_LOST:
            self._ranks.recover(self._step)
            self.resume(checkpoint)
        self._step = step

    def start_step(self, tables: Sequence[tuple[Any, int]]) -> None:
        """Begin an optimizer step on `tables`, (reference, number of groups) each. Raises DataError."""
        assert not self._running, "the last step is not finished"
        self._ranks.welcome(self._step)
        self._tables = list(tables)
        self._hand_out()

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    def waiting_for(self) -> list[Any]:
        """References of which one becomes ready when the running step ends, or is broken off."""
        return list(self._running)

    @property
    def is_overdue(self) -> bool:
        """Whether the running step takes so long that `finish_step` gives it up."""
        return self._ray.clock() >= self._deadline

    def finish_step(self) -> StepReport:
        """Wait for the running step on every rank, and report it.

        A step that a loss broke off is done again, by the ranks that live and on the same groups; one that a
        survivor had completed counts as done, and is reported from what the survivors measured. Raises
        DivergedError at the last of learner.max_bad_steps bad steps in a row.
        """
        attempts = 1 + self._recipe.learner.max_restarts
        for _ in range(attempts):
            is_whole = self._wait_for_results()
            if is_whole or self._ranks.recover(self._step) > self._step:
                return self._finish(is_whole)
            self._hand_out()
        raise ClusterError(
            f"step {self._step + 1} was broken off {attempts} times: events.jsonl names the lost ranks; where "
            "none was lost, look at the network between their nodes"
        )

    @property
    def newcomers(self) -> list[Any]:
        """References that become ready when a replacement for a lost rank can join."""
        return self._ranks.newcomers

    def publish(self, version: int) -> Asked:
        """Ask for the weights as they are now, as policy `version`; between two steps.

        The next step may begin at once, and the next publication when this one is there.
        """
        self._ranks.first.copy_weights.remote(version)
        return self._asked(self._ranks.first.snapshot.options(num_returns=2).remote(version))

    def training_state(self) -> Asked:
        """Ask for what a checkpoint holds, as it is now; between two steps. The next one may begin at once."""
        return self._asked(self._ranks.first.training_state.options(num_returns=2).remote())

    def answer(self, asked: Asked) -> Any:
        """What is told with the value that was asked for, once that is there; None until then.

        Raises one of A_RANK_IS_LOST where it will not come: ask again, once `recover` has been called or the step
        that runs has ended.
        """
        if self._ray.ready([asked.told]):
            return self._ray.get(asked.told)
        if self._ray.clock() >= asked.deadline:
            raise NoAnswerError(f"it has not answered for {self._ranks.answer_seconds:g} s")
        return None

    def recover(self) -> None:
        """Form a group of the ranks that live; between two steps."""
        self._ranks.recover(self._step)

    def snapshot(self, version: int) -> Any:
        """Reference to the weights as policy `version`, which are there and outlive every rank."""
        asked = self._wait_for(lambda: self.publish(version))
        return asked.value

    def weights_sha256(self) -> str | None:
        """Digest of the weights in full precision, between two steps; None where no rank gives it any more."""
        for rank in self._ranks.actors:
            try:
                return self._ray.get(rank.weights_sha256.remote(), timeout=DIGEST_SECONDS)
            except A_RANK_IS_LOST:
                continue
        return None

    def _asked(self, references: Sequence[Any]) -> Asked:
        told, value = references
        return Asked(told, value, self._ray.clock() + self._ranks.answer_seconds)

    def _wait_for(self, ask: Callable[[], Asked]) -> Asked:
        """Until the first rank has answered: should it die, the next is asked."""
        while True:
            asked = ask()
            try:
                self._ray.get(asked.told, timeout=self._ranks.answer_seconds)
            except A_RANK_IS_LOST:
                self.recover()
            else:
                return asked

    def members(self) -> dict[str, tuple[Any, RankDescription]]:
        """The ranks, for a pool that has them roll out as well: by name, with what each says of itself."""
        return self._ranks.by_name()

    def lose_member(self, name: str) -> None:
        """That one died while it rolled out, or does not answer. Where a step runs, its end finds out."""
        self._ranks.kill(name)
        if not self._running:
            self.recover()

    def shutdown(self) -> None:
        self._ranks.shutdown()

    def _hand_out(self) -> None:
        self._deadline = self._ray.clock() + self._recipe.learner.step_timeout_seconds
        shares = share(self._tables, len(self._ranks))
        self._running = [
            rank.train.remote(pieces, self._num_groups)
            for rank, pieces in zip(self._ranks.actors, shares, strict=True)
        ]

    @property
    def _num_groups(self) -> int:
        return sum(count for _, count in self._tables)

    def _wait_for_results(self) -> bool:
        """Whether every rank has ended the step; False as soon as one was lost. Raises a rank's own error.

        Ranks end a step together: one that is still silent when others have long ended counts as lost, and so do
        all that are silent when the step is overdue.
        """
        pending, deadline = self._running, self._deadline
        while pending and self._ray.clock() < deadline:
            self._on_wait()
            done = self._ray.ready(pending, timeout=POLL_SECONDS)
            if not all(self._has_result(reference) for reference in done):
                return False
            pending = [reference for reference in pending if reference not in done]
            if done:
                deadline = min(deadline, self._ray.clock() + self._ranks.answer_seconds)
        return not pending

    def _finish(self, is_whole: bool) -> StepReport:
        finished = [reference for reference in self._running if self._has_result(reference)]
        results: list[RankReport] = self._ray.get(finished)
        sums = sum((result.sums for result in results), StepSums())
        self._step += 1
        report = replace(
            sums.report(self._step, results[0].grad_norm, results[0].stage_seconds),
            resident_bytes=max(result.resident_bytes for result in results),
            gpu_peak_bytes=max(result.gpu_peak_bytes for result in results),
        )
        if not is_whole:
            report = replace(report, is_partial=True, num_groups=self._num_groups - report.num_quarantined)
        self._running, self._tables = [], []
        self._require_finite(report)
        return report

    def _require_finite(self, report: StepReport) -> None:
        self._num_bad_steps = self._num_bad_steps + 1 if report.is_bad else 0
        if self._num_bad_steps >= self._recipe.learner.max_bad_steps:
            raise DivergedError(
                f"the gradient norm of step {report.step} is {report.grad_norm} (loss {report.loss}), as in "
                f"{self._num_bad_steps} steps in a row (learner.max_bad_steps): lower learner.lr, or resume from "
                "an older checkpoint"
            )

    def _has_result(self, reference: Any) -> bool:
        try:
            self._ray.get(reference)
        except A_RANK_IS_LOST:
            return False
        return True
