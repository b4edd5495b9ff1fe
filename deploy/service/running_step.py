"""The step that the learner is at: the tickets that it learns from, and what they say together."""

from collections import Counter
from dataclasses import dataclass

from common.buffer.rollout_buffer import BufferedTicket
from common.types import GroupReceipt


@dataclass(frozen=True)
class RunningStep:
    tickets: list[BufferedTicket]
    version: int  # of the learner, when it took them
    wait_seconds: float  # that the learner had waited for them

    @property
    def ids(self) -> list[int]:
        return [receipt.ticket_id for receipt in self.receipts]

    @property
    def receipts(self) -> list[GroupReceipt]:
        return [ticket.receipt for ticket in self.tickets]

    @property
    def staleness(self) -> list[int]:
        """Of each ticket that has groups."""
        return [self.version - receipt.policy_version for receipt in self.receipts if receipt.num_groups]

    def actor_stage_seconds(self) -> dict[str, float]:
        """The actors' seconds by stage, over all tickets."""
        sums: Counter[str] = Counter()
        for receipt in self.receipts:
            sums.update(receipt.stage_seconds)
        return dict(sums)
