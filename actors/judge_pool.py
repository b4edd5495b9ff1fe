"""The judge actors of a run, and the tickets that wait for one.

A ticket that was rolled out is given to a judge by reference: the driver owns its pictures, so they outlive the
actors that made and judge them. What a lost judge had is judged again by another.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from actors.actor_pool import ActorPool, Role
from actors.judge_actor import JudgeActor, PicturesLostError
from actors.pool_events import JUDGES, Delivery, LostTicket, RolledOut
from actors.pool_members import JudgeCall, Member
from common.config.recipe import Recipe
from common.facts import Fact
from common.judge_facts import JudgeJoined, JudgeLeft, JudgeLost, JudgePending
from common.ray_calls_group import RayCalls, ValueLostError

JUDGE_ACTORS = Role("judge actor", "judge", "reward.actors", JudgePending, JudgeJoined, JudgeLeft)


class JudgePool(ActorPool[Delivery | LostTicket]):
    def __init__(
        self,
        recipe: Recipe,
        tell: Callable[[Fact], None],
        on_wait: Callable[[], None],
        ray: RayCalls,
        actor_class: type = JudgeActor,
    ):
        super().__init__(JUDGE_ACTORS, recipe.reward.actors, tell, on_wait, ray)
        self._recipe, self._actor_class = recipe, actor_class
        self._waiting: deque[RolledOut] = deque()

    @property
    def num_waiting(self) -> int:
        """Tickets that no judge has yet. The ledger's slots bound them."""
        return len(self._waiting)

    @property
    def num_queued(self) -> int:
        """Tickets that no judge works on: those, and all that wait behind another in a judge's hands."""
        return len(self._waiting) + sum(max(0, len(member.calls) - 1) for member in self._members.values())

    def add(self, rolled: RolledOut) -> None:
        """Have a ticket judged."""
        self._waiting.append(rolled)
        self._hand_out()

    def collect(self) -> list[Delivery | LostTicket]:
        """As in every pool; those that are free get what waits."""
        events = super().collect()
        self._hand_out()
        return events

    def _hand_out(self) -> None:
        """The oldest to the least busy."""
        while self._waiting and (name := self._least_busy(self._members)) is not None:
            member, rolled = self._members[name], self._waiting.popleft()
            receipt, groups = member.actor.judge.options(num_returns=2).remote(rolled.receipt, [rolled.unjudged])
            member.calls[groups] = JudgeCall(self._ray.clock(), rolled, receipt)

    def _start(self, name: str) -> Any:
        return self._ask_for(self._actor_class, self._recipe, name)

    def _answer(self, name: str, reference: Any, call: JudgeCall) -> Delivery | LostTicket:
        rolled = call.rolled
        ticket_id, version = rolled.receipt.ticket_id, rolled.receipt.policy_version
        try:
            receipt = self._ray.get(call.receipt)
        except PicturesLostError:
            return LostTicket(JUDGES, ticket_id, version, "pictures")
        try:
            return Delivery(rolled.actor, receipt, reference, self._ray.get(reference), judge=name)
        except ValueLostError:
            return LostTicket(JUDGES, ticket_id, version, "groups")

    def _lose(self, name: str, member: Member, reason: str) -> list[Delivery | LostTicket]:
        lost = [call.rolled for call in member.calls.values()]
        self._waiting.extendleft(reversed(lost))
        self._tell(JudgeLost(name, reason, [rolled.receipt.ticket_id for rolled in lost]))
        self._replace(member)
        return []
