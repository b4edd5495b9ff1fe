"""The judge actors of a run, and what waits for one: tickets, and chunks of an evaluation.

What was rolled out is given to a judge by reference: the driver owns its pictures, so they outlive the actors that
made and judge them. What a lost judge had is judged again by another.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from actors.actor_pool import ActorPool, Role
from actors.judge_actor import JudgeActor, PicturesLostError
from actors.pool_events import (
    JUDGES,
    ChunkDone,
    Delivery,
    JudgeEvent,
    LostChunk,
    LostTicket,
    RolledOut,
    UnjudgedChunk,
)
from actors.pool_members import JudgeCall, Member
from common.config.recipe import Recipe
from common.facts import Fact
from common.judge_facts import JudgeJoined, JudgeLeft, JudgeLost, JudgePending
from common.ray_calls_group import RayCalls, ValueLostError

JUDGE_ACTORS = Role("judge actor", "judge", "reward.actors", JudgePending, JudgeJoined, JudgeLeft)


class JudgePool(ActorPool[JudgeEvent]):
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
        self._waiting: deque[RolledOut | UnjudgedChunk] = deque()

    @property
    def num_waiting(self) -> int:
        """Tickets that no judge has yet. The ledger's slots bound them."""
        return sum(isinstance(work, RolledOut) for work in self._waiting)

    @property
    def num_queued(self) -> int:
        """Tickets that no judge works on: those, and all that wait behind another in a judge's hands."""
        behind = [call for member in self._members.values() for call in list(member.calls.values())[1:]]
        return self.num_waiting + sum(isinstance(call.work, RolledOut) for call in behind)

    @property
    def has_chunks_waiting(self) -> bool:
        """Whether a chunk has no judge yet: then no other is begun, which bounds them."""
        return any(isinstance(work, UnjudgedChunk) for work in self._waiting)

    def add(self, work: RolledOut | UnjudgedChunk) -> None:
        """Have it judged."""
        self._waiting.append(work)
        self._hand_out()

    def collect(self) -> list[JudgeEvent]:
        """As in every pool; those that are free get what waits."""
        events = super().collect()
        self._hand_out()
        return events

    def _hand_out(self) -> None:
        """The oldest to the least busy."""
        while self._waiting and (name := self._least_busy(self._members)) is not None:
            member, work = self._members[name], self._waiting.popleft()
            receipt = None
            if isinstance(work, UnjudgedChunk):
                result = member.actor.judge_chunk.remote([work.unjudged])
            else:
                receipt, result = member.actor.judge.options(num_returns=2).remote(work.receipt, [work.unjudged])
            member.calls[result] = JudgeCall(self._ray.clock(), work, receipt)

    def _start(self, name: str) -> Any:
        return self._ask_for(self._actor_class, self._recipe, name)

    def _answer(self, name: str, reference: Any, call: JudgeCall) -> JudgeEvent:
        if isinstance(call.work, UnjudgedChunk):
            return self._chunk_answer(name, reference, call.work)
        rolled = call.work
        ticket_id, version = rolled.receipt.ticket_id, rolled.receipt.policy_version
        try:
            receipt = self._ray.get(call.receipt)
        except PicturesLostError:
            return LostTicket(JUDGES, ticket_id, version, "pictures")
        try:
            return Delivery(rolled.actor, receipt, reference, self._ray.get(reference), judge=name)
        except ValueLostError:
            return LostTicket(JUDGES, ticket_id, version, "groups")

    def _chunk_answer(self, name: str, reference: Any, chunk: UnjudgedChunk) -> ChunkDone | LostChunk:
        try:
            return ChunkDone(name, chunk.index, self._ray.get(reference))
        except PicturesLostError:
            return LostChunk(JUDGES, chunk.index, chunk.version, "pictures")
        except ValueLostError:
            return LostChunk(JUDGES, chunk.index, chunk.version, "result")

    def _lose(self, name: str, member: Member, reason: str) -> list[JudgeEvent]:
        lost = [call.work for call in member.calls.values()]
        self._waiting.extendleft(reversed(lost))
        tickets = [work.receipt.ticket_id for work in lost if isinstance(work, RolledOut)]
        chunks = [work.index for work in lost if isinstance(work, UnjudgedChunk)]
        self._tell(JudgeLost(name, reason, tickets, chunks))
        self._replace(member)
        return []
