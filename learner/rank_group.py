"""The learner's processes: starts them, forms their process group, and closes the ranks after a loss.

Who lives trains on at once, without the dead. A replacement is asked for, loads beside the training, and joins
between two steps: DDP gives it the weights of the first rank, which gives it optimizer and step as well. So the
first rank is always one that lived through what happened, and of several the one that got furthest.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray

from common.config.recipe import Recipe
from common.errors import ClusterError, LearnerLostError, first_line
from common.machine import needs_text
from learner.learner_actor import LearnerActor, RankDescription
from learner.peers import PeerLostError

log = logging.getLogger("vapi.learner")

POLL_SECONDS = 0.5
OVERDUE_SECONDS = 30.0  # of a rank that is not ready: it is reported, and waited for

DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
LOSSES = (*DEATHS, PeerLostError, ray.exceptions.GetTimeoutError)
"""What an answer may fail with when a rank died, whoever was asked."""

_RemoteLearner: Any = ray.remote(LearnerActor)


@dataclass(eq=False)
class _Rank:
    handle: Any
    description: ray.ObjectRef  # ready when the rank is


class RankGroup:
    def __init__(self, recipe: Recipe, on_event: Callable[..., None]):
        """Ask for the ranks; they load in parallel. `on_event` is told of ranks that come and go."""
        self._recipe = recipe
        self._on_event = on_event
        self._on_wait: Callable[[], None] = lambda: None
        self._members = [self._start() for _ in range(recipe.learner.num_ranks)]
        self._newcomers: list[_Rank] = []
        self._num_losses = 0
        # A living rank answers at the latest when the collective that it waits in has given up
        self._answer_seconds = recipe.learner.collective_timeout_seconds + 60

    def __len__(self) -> int:
        return len(self._members)

    @property
    def handles(self) -> list[Any]:
        """In the order of the ranks."""
        return [rank.handle for rank in self._members]

    def wait_ready(self, timeout_seconds: float, on_wait: Callable[[], None]) -> None:
        """Wait for every rank, then form the process group. Raises ClusterError, or a rank's own error.

        Ranks that take long are reported. `on_wait` is called now and then in this and later waits.
        """
        self._on_wait = on_wait
        descriptions = [rank.description for rank in self._members]
        patience = min(OVERDUE_SECONDS, timeout_seconds)
        missing = self.wait(descriptions, patience)
        if missing:
            self._report_overdue(missing, patience)
            missing = self.wait(descriptions, timeout_seconds - patience)
        if missing:
            raise ClusterError(
                f"{len(missing)} of {len(descriptions)} learner ranks were not ready within {timeout_seconds:.0f} "
                f"s: each needs {self._needs()}; lower learner.num_ranks or what a rank needs, or add nodes"
            )
        ray.get(descriptions)
        self._form(self._members, lagging=[])
        self._announce(self._members, step=0)

    def wait(self, references: Sequence[ray.ObjectRef], timeout_seconds: float) -> list[ray.ObjectRef]:
        """Wait until all are ready; those that are not in time."""
        deadline = monotonic() + timeout_seconds
        _, missing = ray.wait(list(references), num_returns=len(references), timeout=0)
        while missing and monotonic() < deadline:
            self._on_wait()
            _, missing = ray.wait(list(references), num_returns=len(references), timeout=POLL_SECONDS)
        return missing

    def welcome(self, step: int) -> None:
        """Let replacements that are ready join; for between two steps, `step` of which are done."""
        ready = [rank for rank in self._newcomers if _is_ready(rank.description)]
        for rank in ready:
            self._newcomers.remove(rank)
        failed = {rank: error for rank in ready if (error := _error(rank.description)) is not None}
        for rank, error in failed.items():  # could not load
            self._lose(rank, error, step)
        joining = [rank for rank in ready if rank not in failed]
        if joining:
            try:
                self._form([*self._members, *joining], lagging=joining)
            except LOSSES:
                self.recover(step)
            self._announce([rank for rank in joining if rank in self._members], step)

    def recover(self, step: int) -> int:
        """Form a group of the ranks that live, all with the state of the one that got furthest.

        `step` steps were done before the loss; returns how many are now, which is one more where a survivor had
        completed the update. Raises LearnerLostError, and ClusterError after too many losses.
        """
        attempts = 1 + self._recipe.learner.max_restarts
        for _ in range(attempts):
            steps = self._living(step)
            members = sorted(steps, key=lambda rank: -steps[rank])
            furthest = steps[members[0]]
            try:
                self._form(members, lagging=[rank for rank in members if steps[rank] < furthest])
            except LOSSES:
                continue
            return furthest
        raise ClusterError(
            f"the learner ranks that live could not form a group in {attempts} attempts: look at the network "
            "between their nodes"
        )

    def ask_first(self, method: str, *arguments: Any, step: int) -> ray.ObjectRef:
        """Reference to what the first rank answers, known to be there: should the rank die, the next is asked."""
        while True:
            answer = getattr(self._members[0].handle, method).remote(*arguments)
            try:
                ray.get(answer, timeout=self._answer_seconds)
            except LOSSES:
                self.recover(step)
            else:
                return answer

    def shutdown(self) -> None:
        leaving = [rank.handle.leave.remote() for rank in self._members]
        ray.wait(leaving, num_returns=len(leaving), timeout=5)
        for rank in (*self._members, *self._newcomers):
            ray.kill(rank.handle)

    def _start(self) -> _Rank:
        learner = self._recipe.learner
        options = _RemoteLearner.options(
            num_cpus=learner.num_cpus, num_gpus=learner.num_gpus, label_selector=learner.label_selector
        )
        handle = options.remote(self._recipe)
        return _Rank(handle, handle.describe.remote())

    def _report_overdue(self, missing: Sequence[ray.ObjectRef], seconds: float) -> None:
        for index, rank in enumerate(self._members):
            if rank.description in missing:
                log.warning("rank %d is not ready after %.0f s: it waits for %s", index, seconds, self._needs())
                self._on_event("rank_pending", rank=index, needs=self._needs())

    def _needs(self) -> str:
        learner = self._recipe.learner
        return needs_text(learner.num_cpus, learner.num_gpus, learner.label_selector, ray.available_resources())

    def _form(self, members: list[_Rank], lagging: Sequence[_Rank]) -> None:
        """Make `members` the group, in this order, and give the state of the first to those `lagging`."""
        self._members = members
        first = members[0].handle
        address = ray.get(first.open_store.remote(len(members)), timeout=self._answer_seconds)
        joins = [rank.handle.join.remote(index, len(members), *address) for index, rank in enumerate(members)]
        ray.get(joins, timeout=self._answer_seconds)
        if lagging:
            step, optimizer = first.step.remote(), first.optimizer_arrays.remote()
            ray.get([rank.handle.resume.remote(step, optimizer) for rank in lagging], timeout=self._answer_seconds)

    def _living(self, step: int) -> dict[_Rank, int]:
        """How many steps each living rank has done; the others are given up, and replacements asked for."""
        answers = {rank: rank.handle.step.remote() for rank in self._members}
        self.wait(list(answers.values()), self._answer_seconds)
        errors = {rank: _error(answer) for rank, answer in answers.items()}
        lost = {rank: error for rank, error in errors.items() if error is not None}
        if len(lost) == len(self._members):
            for rank, error in lost.items():
                self._tell_lost(rank, error, step)
            raise LearnerLostError(
                f"all {len(lost)} learner ranks were lost in step {step + 1} ({first_line(error)}): resume from "
                "the newest checkpoint; events.jsonl has the reasons"
            )
        for rank, error in lost.items():
            self._lose(rank, error, step)
        return {rank: ray.get(answer) for rank, answer in answers.items() if rank not in lost}

    def _lose(self, rank: _Rank, error: Exception, step: int) -> None:
        self._tell_lost(rank, error, step)
        ray.kill(rank.handle)
        self._num_losses += 1
        if self._num_losses > self._recipe.learner.max_restarts:
            raise ClusterError(
                f"{self._num_losses} learner ranks were lost, more than learner.max_restarts "
                f"({self._recipe.learner.max_restarts}): see events.jsonl for the reasons"
            )
        self._newcomers.append(self._start())  # the weights that it loads are replaced when it joins

    def _tell_lost(self, rank: _Rank, error: Exception, step: int) -> None:
        is_member = rank in self._members  # and no replacement that could not load
        index = self._members.index(rank) if is_member else None
        pid = ray.get(rank.description).pid if is_member else None
        self._on_event("rank_lost", rank=index, reason=first_line(error), step=step, pid=pid)

    def _announce(self, ranks: Sequence[_Rank], step: int) -> None:
        for rank in ranks:
            who: RankDescription = ray.get(rank.description)
            index = self._members.index(rank)
            self._on_event("rank_joined", rank=index, step=step, node=who.node, pid=who.pid)


def _is_ready(reference: ray.ObjectRef) -> bool:
    done, _ = ray.wait([reference], timeout=0)
    return bool(done)


def _error(answer: ray.ObjectRef) -> Exception | None:
    """Why a rank that was asked must be given up: it died, or has not answered by now."""
    if not _is_ready(answer):
        return TimeoutError("it does not answer")
    try:
        ray.get(answer)
    except DEATHS as error:
        return error
    return None
