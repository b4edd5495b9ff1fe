"""What came from the actors and waits for the learner: the ledger's rules, applied to what really arrives."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actors.pool_events import JUDGES, Delivery, LostActor, LostTicket, RolledOut
from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import BufferedTicket, RolloutBuffer
from common.errors import DataError
from common.facts import ActorLost, Fact, ImageSkipped, ResultRefused, TicketDelivered, TicketDropped
from common.types import GroupReceipt


@dataclass
class Intake:
    ledger: Ledger
    buffer: RolloutBuffer
    images_per_ticket: int
    tell: Callable[[Fact], None]

    def pass_on(self, rolled: RolledOut) -> bool:
        """Whether judges are to complete the ticket: it is still its actor's own, and from now on theirs."""
        if self.ledger.pass_on(rolled.receipt.ticket_id, rolled.actor, JUDGES):
            return True
        self.tell(ResultRefused(rolled.actor, rolled.receipt.ticket_id))
        return False

    def deliver(self, delivery: Delivery) -> None:
        """Keep groups whose ticket is still their actor's own, or the judges'."""
        receipt = delivery.receipt
        if self.ledger.deliver(receipt.ticket_id, delivery.holder, receipt.policy_version):
            self.buffer.put(BufferedTicket(receipt, delivery.groups, delivery.table))
            self.tell(TicketDelivered(delivery.actor, receipt, delivery.judge))
        else:
            self.tell(ResultRefused(delivery.actor, receipt.ticket_id))

    def lose_ticket(self, lost: LostTicket) -> None:
        if self.ledger.deliver(lost.ticket_id, lost.actor, lost.version):
            self.ledger.discard([lost.ticket_id])
            reason = f"{lost.lost} lost with a node"
            self.tell(TicketDropped(lost.ticket_id, reason, lost.version, self.images_per_ticket))

    def lose_actor(self, lost: LostActor) -> None:
        self.tell(ActorLost(lost.actor, lost.reason, self.ledger.revoke(lost.actor)))

    def take(self, version: int) -> list[BufferedTicket] | None:
        """The tickets of one step for a learner at `version`, None until there are enough.

        What is too old by now is dropped, to be rolled out again. Images without a group are named once they are
        accounted for, so with the step that they would have been part of. DataError where no group is left.
        """
        for ticket_id in self.ledger.stale(version):
            receipt = self.buffer.pop(ticket_id).receipt
            self.ledger.discard([ticket_id])
            self.tell(TicketDropped(ticket_id, "stale", receipt.policy_version, receipt.num_groups))
        ticket_ids = self.ledger.take(version)
        if ticket_ids is None:
            return None
        taken = [self.buffer.pop(ticket_id) for ticket_id in ticket_ids]
        for ticket in taken:
            for image in ticket.receipt.skipped:
                self.tell(ImageSkipped(image))
        _require_groups([ticket.receipt for ticket in taken])
        return taken


def _require_groups(receipts: Sequence[GroupReceipt]) -> None:
    reasons = Counter(image.reason for receipt in receipts for image in receipt.skipped)
    if not reasons or any(receipt.num_groups for receipt in receipts):
        return
    ((reason, count),) = reasons.most_common(1)
    raise DataError(
        f"a step has no group to learn from: all of its {reasons.total()} images were left out, {count} of them "
        f"because of this: {reason}; events.jsonl names each"
    )
