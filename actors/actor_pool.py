"""Processes of one kind: started in waves, resized, and replaced where they die or hang.

What they are given to do, and what becomes of it when one is lost, is the business of a pool of that kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from actors.pool_members import ActorDescription, Member
from actors.pool_size import most_actors, next_wave, require_possible
from common.config.reward import AnyActorsSection
from common.errors import ClusterError
from common.facts import ActorJoined, ActorLeft, ActorPending, Fact
from common.machine import needs_text
from common.ray_calls_group import NoAnswerError, ProcessLostError, RayCalls

POLL_SECONDS = 0.5
OVERDUE_SECONDS = 30.0

Event = TypeVar("Event")


@dataclass(frozen=True)
class Role:
    """What the actors of a pool are called, and how a run tells of them."""

    noun: str
    prefix: str  # of their names
    key: str  # of the recipe
    pending: Callable[[str, str], Fact] = ActorPending
    joined: Callable[[str, str, int, str], Fact] = ActorJoined
    left: Callable[[str], Fact] = ActorLeft


REWARD_ACTORS = Role("reward actor", "actor", "actors")


class ActorPool(ABC, Generic[Event]):
    def __init__(
        self,
        role: Role,
        section: AnyActorsSection,
        tell: Callable[[Fact], None],
        on_wait: Callable[[], None],
        ray: RayCalls,
    ):
        """`tell` hears of actors that come and go; `on_wait` is called now and then in long waits."""
        self._role, self._section, self._ray = role, section, ray
        self._tell, self._on_wait = tell, on_wait
        self._members: dict[str, Member] = {}
        self._num_started = self._num_wanted = 0
        self.num_restarts = 0

    def __len__(self) -> int:
        """Actors that are ready."""
        return sum(member.is_ready for member in self._members.values())

    @property
    def num_wanted(self) -> int:
        """Actors that are to be there, asked for or not yet."""
        return self._num_wanted

    @property
    def is_busy(self) -> bool:
        """Whether any actor has something to do."""
        return any(member.calls for member in self._members.values())

    @property
    def most(self) -> int:
        """Actors that can be wanted."""
        return most_actors(self._section, self._ray.most_resources())

    def states(self) -> dict[str, dict[str, Any]]:
        """Where each actor is and what it does; node and code are empty where it is not ready."""
        return {name: member.state() for name, member in self._members.items()}

    def resize(self, count: int) -> None:
        """Want `count` actors: new ones load meanwhile, in waves; those that leave finish what they have first.

        TooManyActorsError where the cluster will never hold so many.
        """
        require_possible(count, self._section, self._ray.most_resources(), self._role.noun)
        self._num_wanted = count
        staying = [member for member in self._own.values() if not member.is_leaving]
        leaving = [member for member in self._own.values() if member.is_leaving]
        for member in leaving[: max(0, count - len(staying))]:
            member.is_leaving = False
        self._fill()
        staying.sort(key=lambda member: (member.is_ready, len(member.calls)))
        for member in staying[: max(0, len(staying) - count)]:
            member.is_leaving = True

    def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until every actor is ready, or one is and the others have had their time.

        Raises ClusterError where none could be placed.
        """
        start = self._ray.clock()
        first_ready = None
        while (num_ready := sum(member.is_ready for member in self._own.values())) < self._num_wanted:
            now = self._ray.clock()
            if num_ready and first_ready is None:
                first_ready = now
            if first_ready is not None and now - first_ready > OVERDUE_SECONDS:
                return
            if first_ready is None and now - start > timeout_seconds:
                key = self._role.key
                raise ClusterError(
                    f"no {self._role.noun} was ready within {timeout_seconds:.0f} s: each needs {self._needs()}; "
                    f"lower {key}.count ({self._section.count}) or what they need, or add nodes"
                )
            self._wait_and_collect()

    def waiting_for(self) -> list[Any]:
        """References that become ready when `collect` has something to give."""
        return [reference for member in self._members.values() for reference in member.waiting_for]

    def collect(self) -> list[Event]:
        """What finished or failed since the last call; never waits.

        Lost actors are replaced. What an actor raises (a bug, a data set that is gone) is raised.
        """
        events: list[Event] = []
        for name, member in list(self._members.items()):
            try:
                if not member.is_ready and self._ray.ready([member.description]):
                    self._welcome(name)
                for reference in self._ray.ready(list(member.calls)):
                    events.append(self._answer(name, reference, member.calls[reference]))
                    del member.calls[reference]
                self._require_progress(name, member)
                self._report_overdue(name, member)
                if member.is_leaving and not member.calls:
                    self._dismiss(name)
            except (ProcessLostError, NoAnswerError) as error:
                events += self._lose(name, self._members.pop(name), str(error))
        self._fill()
        return events

    def shutdown(self) -> None:
        for member in self._own.values():
            self._ray.kill(member.actor)
        self._members.clear()

    @property
    def _own(self) -> Mapping[str, Member]:
        """Those that the pool starts, replaces and ends."""
        return self._members

    @abstractmethod
    def _start(self, name: str) -> Any:
        """Ask for another actor, without waiting for it."""

    @abstractmethod
    def _answer(self, name: str, reference: Any, call: Any) -> Event:
        """The event of a call that has its answer. Raises ProcessLostError, and what the actor raised."""

    @abstractmethod
    def _lose(self, name: str, member: Member, reason: str) -> list[Event]:
        """What a lost actor, which is no member any more, leaves behind."""

    def _ask_for(self, actor_class: type, *arguments: Any, **options: Any) -> Any:
        """A process with what the recipe reserves for each; not waited for."""
        actors = self._section
        return self._ray.start(
            actor_class,
            *arguments,
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            label_selector=actors.label_selector,
            **options,
        )

    def _least_busy(self, able: Mapping[str, Member]) -> str | None:
        """Who of these takes the next ticket; None where all have as many as they may hold."""
        free = {name: member for name, member in able.items() if member.is_free_for_more}
        name = min(free, key=lambda name: len(free[name].calls), default=None)
        if name is None or len(free[name].calls) >= self._section.tickets_in_flight:
            return None
        return name

    def _replace(self, member: Member) -> None:
        """Another takes the place of a lost actor that was to stay. ClusterError where too many were lost."""
        self._ray.kill(member.actor)
        if member.is_leaving:
            return
        self.num_restarts += 1
        if self.num_restarts > self._section.max_restarts:
            raise ClusterError(
                f"{self.num_restarts} {self._role.noun}s were lost, more than {self._role.key}.max_restarts "
                f"({self._section.max_restarts}): see events.jsonl for the reasons"
            )

    def _wait_and_collect(self) -> list[Event]:
        self._on_wait()
        self._ray.ready(self.waiting_for(), timeout=POLL_SECONDS)
        return self.collect()

    def _dismiss(self, name: str) -> None:
        self._ray.kill(self._members.pop(name).actor)
        self._tell(self._role.left(name))

    def _report_overdue(self, name: str, member: Member) -> None:
        is_late = not member.is_ready and self._ray.clock() - member.asked_at >= OVERDUE_SECONDS
        if is_late and not member.is_overdue:
            member.is_overdue = True
            self._tell(self._role.pending(name, self._needs()))

    def _needs(self) -> str:
        actors, free = self._section, self._ray.free_resources()
        return needs_text(actors.num_cpus, actors.num_gpus, actors.label_selector, free)

    def _fill(self) -> None:
        """Ask for the actors that are wanted and not yet there, as many as may load at a time."""
        staying = [member for member in self._own.values() if not member.is_leaving]
        ready = sum(member.is_ready for member in staying)
        for _ in range(next_wave(self._num_wanted, ready, len(staying) - ready)):
            name = f"{self._role.prefix}-{self._num_started}"
            self._num_started += 1
            actor = self._start(name)
            self._members[name] = Member(actor, actor.describe.remote(), self._ray.clock())

    def _welcome(self, name: str) -> None:
        member = self._members[name]
        description: ActorDescription = self._ray.get(member.description)
        member.welcome(name, description.node, description.code)
        self._tell(self._role.joined(name, description.node, description.pid, description.device))

    def _require_progress(self, name: str, member: Member) -> None:
        limit = self._section.ticket_timeout_seconds * self._section.tickets_in_flight
        if member.has_hung(self._ray.clock(), limit):
            raise NoAnswerError(f"{name} has not answered for {limit:.0f} s")
