"""Processes that roll out in a pool and are somebody else's: colocated learner ranks."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from actors.pool_members import Member
from common.facts import ActorJoined, Fact


class Hosts(Protocol):
    """Who has such processes, each with a policy of its own; starts, replaces and ends them."""

    def members(self) -> Mapping[str, tuple[Any, Any]]:
        """Actors by names that never come again, each with its node, pid and device."""

    def lose_member(self, name: str) -> None:
        """That one is dead, or does not answer and is to be."""


class Guests:
    def __init__(self, hosts: Hosts | None, tell: Callable[[Fact], None], clock: Callable[[], float]):
        self._hosts, self._tell, self._clock = hosts, tell, clock
        self._lost: set[str] = set()

    def seat(self, members: dict[str, Member]) -> None:
        """Have `members` hold those that the hosts have now; those that are gone the hosts tell of themselves."""
        guests = self._hosts.members() if self._hosts else {}
        for name in [name for name, member in members.items() if member.is_guest and not member.calls]:
            if name not in guests:
                del members[name]
        for name, (actor, who) in guests.items():
            if name not in members and name not in self._lost:
                members[name] = Member(actor, None, self._clock(), node=who.node, is_guest=True)
                self._tell(ActorJoined(name, who.node, who.pid, who.device))

    def of(self, members: dict[str, Member]) -> dict[str, Member]:
        return {name: member for name, member in members.items() if member.is_guest}

    def lose(self, name: str) -> None:
        assert self._hosts is not None
        self._lost.add(name)
        self._hosts.lose_member(name)
