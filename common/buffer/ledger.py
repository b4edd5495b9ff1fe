"""Who works on which samples: admission, staleness, and the account of every sample of the run. Pure Python.

A run learns from samples 0 … num_steps · samples_per_step - 1, cut into tickets. A ticket is pending, out (an
actor has it, or the judges after it), buffered (its groups wait), taken (the learner has them) or learned.

**The bound.** There are (max_staleness + 1) · tickets_per_step slots. A ticket takes a slot when it is admitted,
and the slot reopens only when the weights of the step that learned from it are published. So among the tickets
learned before a given one, at most max_staleness steps' worth can have been published since its admission: no
ticket is born stale. A ticket that others overtake (its actor was slow, or died and the ticket was rolled out
again) can still become too old; it is then discarded and rolled out again.

With max_staleness 0 the slots are exactly the tickets of one step, so each step learns from its own samples in
order, whatever the actors did meanwhile.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from common.types import WorkTicket


@dataclass
class Ledger:
    num_steps: int
    tickets_per_step: int
    samples_per_ticket: int
    max_staleness: int

    out: dict[int, str] = field(default_factory=dict)  # ticket id → the actor that has it
    buffered: dict[int, int] = field(default_factory=dict)  # ticket id → policy version of its groups
    taken: set[int] = field(default_factory=set)  # tickets the learner has
    unpublished: int = 0  # learned tickets, which keep their slots until the weights are published
    _again: list[int] = field(default_factory=list)  # heap: admitted before, to be rolled out again
    _next: int = 0  # every ticket below was admitted once
    _learned_below: int = 0  # every ticket below is learned
    _learned_beyond: set[int] = field(default_factory=set)  # learned tickets from there on

    @property
    def capacity(self) -> int:
        """Slots, in tickets."""
        return (self.max_staleness + 1) * self.tickets_per_step

    @property
    def num_tickets(self) -> int:
        return self.num_steps * self.tickets_per_step

    @property
    def num_learned(self) -> int:
        return self._learned_below + len(self._learned_beyond)

    def admit(self, actor: str) -> WorkTicket | None:
        """Charge a slot and give `actor` the oldest pending ticket; None if no slot or ticket is left."""
        if len(self.out) + len(self.buffered) + len(self.taken) + self.unpublished >= self.capacity:
            return None
        if self._again:
            ticket_id = heapq.heappop(self._again)
        elif self._next < self.num_tickets:
            ticket_id, self._next = self._next, self._next + 1
        else:
            return None
        self.out[ticket_id] = actor
        first = ticket_id * self.samples_per_ticket
        return WorkTicket(ticket_id, tuple(range(first, first + self.samples_per_ticket)))

    def pass_on(self, ticket_id: int, actor: str, to: str) -> bool:
        """Have `to` hold the ticket in place of `actor`; False if that one no longer does."""
        if self.out.get(ticket_id) != actor:
            return False
        self.out[ticket_id] = to
        return True

    def deliver(self, ticket_id: int, actor: str, version: int) -> bool:
        """Accept groups that `actor` made with policy `version`; False if it no longer holds the ticket."""
        if self.out.get(ticket_id) != actor:
            return False
        del self.out[ticket_id]
        self.buffered[ticket_id] = version
        return True

    def revoke(self, actor: str) -> list[int]:
        """Take back every ticket of a lost actor; its late deliveries are refused."""
        lost = [ticket_id for ticket_id, holder in self.out.items() if holder == actor]
        for ticket_id in lost:
            del self.out[ticket_id]
            heapq.heappush(self._again, ticket_id)
        return lost

    def discard(self, ticket_ids: Iterable[int]) -> None:
        """Roll buffered tickets out again: their groups are lost or too old."""
        for ticket_id in ticket_ids:
            del self.buffered[ticket_id]
            heapq.heappush(self._again, ticket_id)

    def stale(self, version: int) -> list[int]:
        """Buffered tickets that a learner at `version` must not learn from."""
        return [ticket for ticket, made_by in self.buffered.items() if version - made_by > self.max_staleness]

    def take(self, version: int) -> list[int] | None:
        """The oldest buffered tickets for one step of a learner at `version`; None until there are enough.

        The caller must discard `stale` tickets first.
        """
        if len(self.buffered) < self.tickets_per_step:
            return None
        chosen = sorted(self.buffered)[: self.tickets_per_step]
        for ticket_id in chosen:
            assert version - self.buffered.pop(ticket_id) <= self.max_staleness
            self.taken.add(ticket_id)
        return chosen

    def learn(self, ticket_ids: Iterable[int]) -> None:
        """Note that the step is done that took these tickets; their slots reopen once it is published."""
        for ticket_id in ticket_ids:
            self.taken.remove(ticket_id)
            self._learned_beyond.add(ticket_id)
            self.unpublished += 1
        while self._learned_below in self._learned_beyond:
            self._learned_beyond.remove(self._learned_below)
            self._learned_below += 1

    def release(self) -> None:
        """Reopen the slots of all learned tickets: what was learned from them is published."""
        self.unpublished = 0

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint: the learned tickets. All others are rolled out again after a resume."""
        return {"learned_below": self._learned_below, "learned_beyond": sorted(self._learned_beyond)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state in a ledger that has admitted nothing yet."""
        assert not self._next
        self._learned_below = state["learned_below"]
        self._learned_beyond = set(state["learned_beyond"])
        self._next = max(self._learned_beyond, default=self._learned_below - 1) + 1
        self._again = [
            ticket for ticket in range(self._learned_below, self._next) if ticket not in self._learned_beyond
        ]
