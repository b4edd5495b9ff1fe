"""The learner's processes: starts them, forms their process group, and closes the ranks after a loss.

Who lives trains on at once, without the dead. A replacement is asked for, loads beside the training, and joins
between two steps: DDP gives it the weights of the first rank, which gives it optimizer and step as well. So the
first rank is always one that lived through what happened, and of several the one that got furthest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.config.recipe import Recipe
from common.errors import ClusterError, LearnerLostError
from common.facts import Fact, RankJoined, RankLost, RankPending
from common.machine import needs_text
from common.ray_calls_group import NoAnswerError, ProcessLostError, RayCalls
from learner.learner_actor import LearnerActor, RankDescription
from learner.peers import PeerLostError

POLL_SECONDS = 0.5
OVERDUE_SECONDS = 30.0  # of a rank that is not ready: it is reported, and waited for
DEAD_SECONDS = 2.0  # after which a call to a dead process has failed

A_RANK_IS_LOST = (ProcessLostError, PeerLostError, NoAnswerError)
"""What an answer may fail with when a rank died, whoever was asked."""


@dataclass(eq=False)
class _Rank:
    name: str  # that no other one of the run had
    actor: Any
    description: Any  # reference; ready when the rank is


class RankGroup:
    def __init__(
        self,
        recipe: Recipe,
        tell: Callable[[Fact], None],
        ray: RayCalls,
        actor_class: type[LearnerActor] = LearnerActor,
    ):
        """Ask for the ranks; they load in parallel. `tell` hears of ranks that come and go."""
        self._recipe = recipe
        self._tell = tell
        self._ray = ray
        self._actor_class = actor_class
        self._on_wait: Callable[[], None] = lambda: None
        self._num_started = 0
        learner = recipe.learner
        self._room: Any = None  # on as few nodes as possible: GPUs add up their gradients between them
        if learner.num_ranks > 1 and learner.num_gpus:
            needs = {"CPU": learner.num_cpus, "GPU": learner.num_gpus}
            self._room = ray.room_together(needs, learner.num_ranks, learner.label_selector)
        self._members = [self._start() for _ in range(recipe.learner.num_ranks)]
        self._newcomers: list[_Rank] = []
        self._num_losses = 0
        # A living rank answers at the latest when the collective that it waits in has given up
        self.answer_seconds = recipe.learner.collective_timeout_seconds + 60
        if recipe.placement == "colocated":  # or the tickets before it are rolled out
            self.answer_seconds += recipe.actors.ticket_timeout_seconds * recipe.actors.tickets_in_flight

    def __len__(self) -> int:
        return len(self._members)

    @property
    def actors(self) -> list[Any]:
        """In the order of the ranks."""
        return [rank.actor for rank in self._members]

    def by_name(self) -> dict[str, tuple[Any, RankDescription]]:
        """The ranks of the group by names that never come again, each with what it says of itself."""
        return {rank.name: (rank.actor, self._ray.get(rank.description)) for rank in self._members}

    def kill(self, name: str) -> None:
        """End the rank of that name, if it is still one."""
        for rank in self._members:
            if rank.name == name:
                self._ray.kill(rank.actor)

    def wait_ready(self, timeout_seconds: float, on_wait: Callable[[], None]) -> None:
        """Wait for every rank, then form the process group. Raises ClusterError, or a rank's own error.

        Ranks that take long are reported. `on_wait` is called now and then in this and later waits.
        """
        self._on_wait = on_wait
        descriptions = [rank.description for rank in self._members]
        patience = min(OVERDUE_SECONDS, timeout_seconds)
        missing = self.wait(descriptions, patience)
        if missing:
            self._report_overdue(missing)
            missing = self.wait(descriptions, timeout_seconds - patience)
        if missing:
            raise ClusterError(
                f"{len(missing)} of {len(descriptions)} learner ranks were not ready within {timeout_seconds:.0f} "
                f"s: each needs {self._needs()}; lower learner.num_ranks or what a rank needs, or add nodes"
            )
        try:
            self._ray.get(descriptions)
            self._form(self._members, lagging=[])
        except A_RANK_IS_LOST as error:
            raise ClusterError(
                f"a learner rank was lost before the first step: {error}; look at the memory of its node, and "
                "at the network between the ranks"
            ) from error
        self._announce(self._members, step=0)

    def wait(self, references: Sequence[Any], timeout_seconds: float) -> list[Any]:
        """Wait until all are ready; those that are not in time."""
        deadline = self._ray.clock() + timeout_seconds
        missing = self._missing(references, 0)
        while missing and self._ray.clock() < deadline:
            self._on_wait()
            missing = self._missing(references, POLL_SECONDS)
        return missing

    @property
    def newcomers(self) -> list[Any]:
        """References that become ready when a replacement can join."""
        return [rank.description for rank in self._newcomers]

    def welcome(self, step: int) -> None:
        """Let replacements that are ready join; for between two steps, `step` of which are done."""
        ready = [rank for rank in self._newcomers if self._ray.ready([rank.description])]
        for rank in ready:
            self._newcomers.remove(rank)
        failed = {rank: error for rank in ready if (error := self._error(rank.description)) is not None}
        for rank, error in failed.items():  # could not load
            self._lose(rank, error, step)
        joining = [rank for rank in ready if rank not in failed]
        if joining:
            try:
                self._form([*self._members, *joining], lagging=joining)
            except A_RANK_IS_LOST:
                self.recover(step)
            self._announce([rank for rank in joining if rank in self._members], step)

    def recover(self, step: int) -> int:
        """Form a group of the ranks that live, all with the state of the one that got furthest.

        `step` steps were done before the loss; returns how many are now, which is one more where a survivor had
        completed the update. Raises LearnerLostError, and ClusterError after too many losses.

        Ranks on GPUs do not survive the loss of another: under NCCL they wait in a collective that nobody can
        break off, and that ends them all. They are killed at once, so that the run goes on from its checkpoint.
        """
        if len(self._members) > 1 and self._are_on_gpus:
            self._give_up_all(step)
        attempts = 1 + self._recipe.learner.max_restarts
        for _ in range(attempts):
            steps = self._living(step)
            members = sorted(steps, key=lambda rank: -steps[rank])
            furthest = steps[members[0]]
            if furthest < step:  # who only was about to join has its own first weights
                raise LearnerLostError(
                    f"the learner ranks that had done step {step} were lost before others had their state: resume "
                    "from the newest checkpoint; events.jsonl has the reasons"
                )
            try:
                self._form(members, lagging=[rank for rank in members if steps[rank] < furthest])
            except A_RANK_IS_LOST:
                continue
            return furthest
        raise ClusterError(
            f"the learner ranks that live could not form a group in {attempts} attempts: look at the network "
            "between their nodes"
        )

    @property
    def first(self) -> Any:
        """The rank that is asked where all would answer the same."""
        return self._members[0].actor

    def shutdown(self) -> None:
        leaving = [rank.actor.leave.remote() for rank in self._members]
        self._ray.ready(leaving, timeout=5, count=len(leaving))
        for rank in (*self._members, *self._newcomers):
            self._ray.kill(rank.actor)
        if self._room is not None:
            self._ray.leave_room(self._room)

    def _missing(self, references: Sequence[Any], timeout: float) -> list[Any]:
        ready = self._ray.ready(references, timeout=timeout, count=len(references))
        return [reference for reference in references if reference not in ready]

    def _start(self) -> _Rank:
        learner = self._recipe.learner
        actor = self._ray.start(
            self._actor_class,
            self._recipe,
            concurrency_groups=self._actor_class.CONCURRENCY_GROUPS,
            room=self._room,
            num_cpus=learner.num_cpus,
            num_gpus=learner.num_gpus,
            label_selector=learner.label_selector,
        )
        self._num_started += 1
        return _Rank(f"rank-{self._num_started - 1}", actor, actor.describe.remote())

    def _report_overdue(self, missing: Sequence[Any]) -> None:
        for index, rank in enumerate(self._members):
            if rank.description in missing:
                self._tell(RankPending(index, self._needs()))

    def _needs(self) -> str:
        learner = self._recipe.learner
        return needs_text(learner.num_cpus, learner.num_gpus, learner.label_selector, self._ray.free_resources())

    def _form(self, members: list[_Rank], lagging: Sequence[_Rank]) -> None:
        """Make `members` the group, in this order, and give the state of the first to those `lagging`."""
        self._members = members
        first = members[0].actor
        address = self._ray.get(first.open_store.remote(len(members)), timeout=self.answer_seconds)
        joins = [rank.actor.join.remote(index, len(members), *address) for index, rank in enumerate(members)]
        self._ray.get(joins, timeout=self.answer_seconds)
        if lagging:
            step, optimizer = first.step.remote(), first.optimizer_arrays.remote()
            taken_up = [rank.actor.resume.remote(step, optimizer) for rank in lagging]
            self._ray.get(taken_up, timeout=self.answer_seconds)

    @property
    def _are_on_gpus(self) -> bool:
        return any(self._ray.get(rank.description).device.startswith("cuda") for rank in self._members)

    def _give_up_all(self, step: int) -> None:
        answers = {rank: rank.actor.step.remote() for rank in self._members}
        self._ray.ready(list(answers.values()), timeout=DEAD_SECONDS, count=len(answers))
        for rank, answer in answers.items():
            error = self._error(answer) if self._ray.ready([answer]) else None
            self._tell_lost(rank, error or NoAnswerError("killed: NCCL does not go on without the others"), step)
            self._ray.kill(rank.actor)
        raise LearnerLostError(
            f"a learner rank was lost after step {step}, and under NCCL the others cannot go on without it: "
            "resume from the newest checkpoint; events.jsonl has the reasons"
        )

    def _living(self, step: int) -> dict[_Rank, int]:
        """How many steps each living rank has done; the others are given up, and replacements asked for."""
        answers = {rank: rank.actor.step.remote() for rank in self._members}
        self.wait(list(answers.values()), self.answer_seconds)
        errors = {rank: self._error(answer) for rank, answer in answers.items()}
        lost = {rank: error for rank, error in errors.items() if error is not None}
        if len(lost) == len(self._members):
            for rank, error in lost.items():
                self._tell_lost(rank, error, step)
            raise LearnerLostError(
                f"all {len(lost)} learner ranks were lost in step {step + 1} ({error}): resume from the newest "
                "checkpoint; events.jsonl has the reasons"
            )
        for rank, error in lost.items():
            self._lose(rank, error, step)
        return {rank: self._ray.get(answer) for rank, answer in answers.items() if rank not in lost}

    def _lose(self, rank: _Rank, error: Exception, step: int) -> None:
        self._tell_lost(rank, error, step)
        self._ray.kill(rank.actor)
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
        pid = self._ray.get(rank.description).pid if is_member else None
        self._tell(RankLost(index, str(error), step, pid))

    def _announce(self, ranks: Sequence[_Rank], step: int) -> None:
        for rank in ranks:
            who: RankDescription = self._ray.get(rank.description)
            self._tell(RankJoined(self._members.index(rank), step, who.node, who.pid))

    def _error(self, answer: Any) -> Exception | None:
        """Why a rank that was asked must be given up: it died, or has not answered by now."""
        if not self._ray.ready([answer]):
            return NoAnswerError("it does not answer")
        try:
            self._ray.get(answer)
        except ProcessLostError as error:
            return error
        return None
