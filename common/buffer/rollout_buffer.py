"""The scored groups that wait for the learner. Pure Python: it buffers references, not groups.

The driver owns the references, so groups outlive their actor, and keeps a copy on its own node, so they outlive
the actor's node. The ledger's slots bound the number of tickets; `max_bytes` bounds their size.
"""

from dataclasses import dataclass
from typing import Any

from common.types import GroupReceipt


@dataclass(frozen=True)
class BufferedTicket:
    receipt: GroupReceipt
    groups: Any  # reference to the Arrow table in the object store; to None if every image was broken
    table: Any = None  # that table: holding it keeps the copy on this node


class RolloutBuffer:
    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._tickets: dict[int, BufferedTicket] = {}
        self.num_bytes = 0

    @property
    def num_groups(self) -> int:
        return sum(ticket.receipt.num_groups for ticket in self._tickets.values())

    def put(self, ticket: BufferedTicket) -> None:
        self._tickets[ticket.receipt.ticket_id] = ticket
        self.num_bytes += ticket.receipt.num_bytes
        assert self.num_bytes <= self._max_bytes, "the recipe's check of buffer.max_bytes does not hold"

    def pop(self, ticket_id: int) -> BufferedTicket:
        ticket = self._tickets.pop(ticket_id)
        self.num_bytes -= ticket.receipt.num_bytes
        return ticket
