"""The reward actors of a run: starts them, keeps each busy, and replaces those that die or hang.

The pool knows which call belongs to which actor. What a ticket means, and whether a delivery still counts, is the
business of the ledger; which chunks of an evaluation are still to be done is the business of the chunk queue.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from actors.actor_pool import POLL_SECONDS, REWARD_ACTORS, ActorPool
from actors.answers_pool import answer_to
from actors.evaluation.chunk_queue import ChunkQueue
from actors.evaluation.chunks import EvaluationChunk
from actors.judge_pool import JudgePool
from actors.pool_events import (
    ChunkDone,
    JudgeEvent,
    LostActor,
    LostChunk,
    PoolEvent,
    PublishedPolicy,
    UnjudgedChunk,
)
from actors.pool_guests import Guests, Hosts
from actors.pool_members import Call, Member
from actors.rollout_actor import FETCHING, READING, TRAINING, ActorJob, RolloutActor
from common.config.recipe import Recipe
from common.facts import ActorLost, Fact
from common.ray_calls_group import RayCalls
from common.types import WorkTicket


class RolloutPool(ActorPool[PoolEvent]):
    def __init__(
        self,
        recipe: Recipe,
        tell: Callable[[Fact], None],
        on_wait: Callable[[], None],
        ray: RayCalls,
        actor_class: type = RolloutActor,
        job: ActorJob = TRAINING,
        hosts: Hosts | None = None,
    ):
        """As every pool.

        The processes of `hosts` are given work as well. Nothing here starts, replaces or ends them.
        """
        super().__init__(REWARD_ACTORS, recipe.actors, tell, on_wait, ray)
        self._guests = Guests(hosts, tell, ray.clock)
        self._recipe, self._actor_class, self._job = recipe, actor_class, job
        self._given_up: dict[Any, tuple[str, Call]] = {}  # tickets of lost actors

    @property
    def _own(self) -> dict[str, Member]:
        return {name: member for name, member in self._members.items() if not member.is_guest}

    def free_actors(self, published: PublishedPolicy) -> Iterator[str]:
        """Actors that can take one more ticket, the least busy first; asked anew after each.

        Without a snapshot of what is `published`, guests alone: they have it.
        """
        self._guests.seat(self._members)
        while True:
            able = self._members if published.snapshot is not None else self._guests.of(self._members)
            name = self._least_busy(able)
            if name is None:
                return
            yield name

    def fetch_ahead(self, published: PublishedPolicy) -> None:
        """Have every actor fetch these weights, which its next tickets will need, beside its work."""
        for member in self._own.values():
            if member.is_free_for_more and published.snapshot is not None:
                member.actor.fetch_ahead.remote(published.version, [published.snapshot])

    def submit(self, actor: str, ticket: WorkTicket, published: PublishedPolicy) -> None:
        member = self._members[actor]
        if member.calls:  # it will wait behind them
            member.actor.read_ahead.remote(ticket.sample_indices)
        receipt, groups = member.actor.roll_out.options(num_returns=2).remote(
            ticket, published.version, [published.snapshot]
        )
        key = receipt if self._recipe.awaits_judges(ticket.sample_indices[0]) else groups
        member.calls[key] = Call(self._ray.clock(), published.version, ticket.ticket_id, receipt, groups)

    def submit_chunk(self, actor: str, index: int, chunk: EvaluationChunk, published: PublishedPolicy) -> None:
        member = self._members[actor]
        result, unjudged = member.actor.evaluate.options(num_returns=2).remote(
            chunk, published.version, [published.snapshot]
        )
        member.calls[result] = Call(self._ray.clock(), published.version, chunk=index, unjudged=unjudged)

    def collect(self) -> list[PoolEvent]:
        """As in every pool. Should a lost actor be alive somewhere and answer late, that is an event like any
        other, and the ledger refuses it."""
        return [*self._late_results(), *super().collect()]

    def evaluate(
        self,
        chunks: Sequence[EvaluationChunk],
        published: PublishedPolicy,
        publish_again: Callable[[], PublishedPolicy] | None = None,
        judges: JudgePool | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Index and result of each of `chunks`, as they are done; for actors that have no tickets.

        `publish_again` gives the same weights once more, should no node have them any more. `judges` complete what
        these actors leave to them.
        """
        queue = ChunkQueue(chunks)
        while not queue.is_done:
            if judges is None or not judges.has_chunks_waiting:
                self._hand_out(queue, published)
            events = self._wait_and_collect(judges)
            for event in events:
                if isinstance(event, ChunkDone):
                    queue.finish(event.index)
                    yield event.index, event.result
                elif isinstance(event, UnjudgedChunk):
                    assert judges is not None, "its actor has a recipe with judge actors"
                    queue.pass_on(event.index)
                    judges.add(event)
            _give_back(queue, events)
            if any(isinstance(event, LostChunk) and event.lost == "weights" for event in events):
                assert publish_again is not None, "nobody can publish the weights again"
                published = publish_again()

    def _hand_out(self, queue: ChunkQueue, published: PublishedPolicy) -> None:
        for actor in self.free_actors(published):
            taken = queue.take(actor)
            if taken is None:
                return
            self.submit_chunk(actor, *taken, published)

    def _late_results(self) -> list[PoolEvent]:
        """Results of actors that were given up; most calls of theirs end with their death."""
        events: list[PoolEvent] = []
        for reference in self._ray.ready(list(self._given_up)):
            name, call = self._given_up.pop(reference)
            with suppress(Exception):  # whatever it failed with: others do its work
                events.append(answer_to(self._ray, name, reference, call))
        return events

    def _start(self, name: str) -> Any:
        groups = {READING: 1, FETCHING: 1}
        return self._ask_for(self._actor_class, self._recipe, name, self._job, concurrency_groups=groups)

    def _answer(self, name: str, reference: Any, call: Call) -> PoolEvent:
        return answer_to(self._ray, name, reference, call)

    def _lose(self, name: str, member: Member, reason: str) -> list[PoolEvent]:
        self._given_up |= {result: (name, call) for result, call in member.calls.items() if call.chunk is None}
        if member.is_guest:
            self._guests.lose(name)
        else:
            self._replace(member)
        return [LostActor(name, reason)]

    def _wait_and_collect(self, judges: JudgePool | None = None) -> list[PoolEvent | JudgeEvent]:
        """Between trainings; of lost actors with tickets the driver tells, which knows these."""
        pools: list[ActorPool] = [self] if judges is None else [self, judges]
        self._on_wait()
        self._ray.ready([each for pool in pools for each in pool.waiting_for()], timeout=POLL_SECONDS)
        events = [event for pool in pools for event in pool.collect()]
        for event in events:
            if isinstance(event, LostActor):
                self._tell(ActorLost(event.actor, event.reason, tickets=[]))
            elif isinstance(event, LostChunk):
                self._tell(event.fact())
        return events


def _give_back(queue: ChunkQueue, events: Sequence[Any]) -> None:
    """Chunks that are to be done again."""
    for event in events:
        if isinstance(event, LostActor):
            queue.give_back(event.actor)
        elif isinstance(event, LostChunk):
            queue.redo(event.index)
