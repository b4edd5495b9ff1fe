"""The reward actors of a run: starts them, keeps each busy, and replaces those that die or hang.

The pool knows which call belongs to which actor. What a ticket means, and whether a delivery still counts, is the
business of the ledger; which chunks of an evaluation are still to be done is the business of the chunk queue.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from actors.answers_pool import answer_to
from actors.evaluation.chunk_queue import ChunkQueue
from actors.evaluation.chunks import EvaluationChunk
from actors.pool_events import ChunkDone, LostActor, LostChunk, PoolEvent, PublishedPolicy
from actors.pool_guests import Guests, Hosts
from actors.pool_members import Call, Member
from actors.pool_size import most_actors, next_wave, require_possible
from actors.rollout_actor import FETCHING, READING, TRAINING, ActorDescription, ActorJob, RolloutActor
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.facts import ActorJoined, ActorLeft, ActorLost, ActorPending, Fact
from common.machine import needs_text
from common.ray_calls_group import NoAnswerError, ProcessLostError, RayCalls
from common.types import WorkTicket

log = logging.getLogger("vapi.actors")

POLL_SECONDS = 0.5
OVERDUE_SECONDS = 30.0


class RolloutPool:
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
        """`tell` hears of actors that come and go; `on_wait` is called now and then in long waits.

        The processes of `hosts` are given work as well. Nothing here starts, replaces or ends them.
        """
        self._guests = Guests(hosts, tell, ray.clock)
        self._recipe, self._ray = recipe, ray
        self._tell, self._on_wait = tell, on_wait
        self._actor_class, self._job = actor_class, job
        self._members: dict[str, Member] = {}
        self._num_started = self._num_wanted = 0
        self._given_up: dict[Any, tuple[str, Call]] = {}  # tickets of lost actors
        self.num_restarts = 0

    def __len__(self) -> int:
        """Actors that are ready."""
        return sum(member.is_ready for member in self._members.values())

    @property
    def _own(self) -> dict[str, Member]:
        return {name: member for name, member in self._members.items() if not member.is_guest}

    @property
    def num_wanted(self) -> int:
        """Actors that are to be there, asked for or not yet."""
        return self._num_wanted

    @property
    def most(self) -> int:
        """Actors that can be wanted."""
        return most_actors(self._recipe.actors, self._ray.most_resources())

    def states(self) -> dict[str, dict[str, Any]]:
        """Where each actor is and what it does; node and code are empty where it is not ready."""
        return {name: member.state() for name, member in self._members.items()}

    def resize(self, count: int) -> None:
        """Want `count` actors: new ones load meanwhile, in waves; those that leave finish what they have first.

        TooManyActorsError where the cluster will never hold so many.
        """
        require_possible(count, self._recipe.actors, self._ray.most_resources())
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
                actors = self._recipe.actors
                raise ClusterError(
                    f"no reward actor was ready within {timeout_seconds:.0f} s: each needs {self._needs()}; lower "
                    f"actors.count ({actors.count}) or what they need, or add nodes"
                )
            for event in self._wait_and_collect():
                if isinstance(event, LostActor):
                    self._tell_lost(event)

    def free_actors(self, published: PublishedPolicy) -> Iterator[str]:
        """Actors that can take one more ticket, the least busy first; asked anew after each.

        Without a snapshot of what is `published`, guests alone: they have it.
        """
        self._guests.seat(self._members)
        while True:
            able = self._members if published.snapshot is not None else self._guests.of(self._members)
            free = {name: member for name, member in able.items() if member.is_free_for_more}
            name = min(free, key=lambda name: len(free[name].calls), default=None)
            if name is None or len(free[name].calls) >= self._recipe.actors.tickets_in_flight:
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
        member.calls[groups] = Call(self._ray.clock(), published.version, ticket.ticket_id, receipt)

    def submit_chunk(self, actor: str, index: int, chunk: EvaluationChunk, published: PublishedPolicy) -> None:
        member = self._members[actor]
        result = member.actor.evaluate.remote(chunk, published.version, [published.snapshot])
        member.calls[result] = Call(self._ray.clock(), published.version, chunk=index)

    def waiting_for(self) -> list[Any]:
        """References that become ready when `collect` has something to give."""
        return [reference for member in self._members.values() for reference in member.waiting_for]

    def collect(self) -> list[PoolEvent]:
        """What finished or failed since the last call; never waits.

        Lost actors are replaced. Should one of them be alive somewhere and answer late, that is an event like
        any other, and the ledger refuses it. What an actor raises (a bug, a data set that is gone) is raised.
        """
        events = self._late_results()
        for name, member in list(self._members.items()):
            try:
                if not member.is_ready and self._ray.ready([member.description]):
                    self._welcome(name)
                for reference in self._ray.ready(list(member.calls)):
                    events.append(answer_to(self._ray, name, reference, member.calls.pop(reference)))
                self._require_progress(name, member)
                self._report_overdue(name, member)
                if member.is_leaving and not member.calls:
                    self._dismiss(name)
            except (ProcessLostError, NoAnswerError) as error:
                events.append(LostActor(name, str(error)))
                self._give_up(name)
        self._fill()
        return events

    def evaluate(
        self,
        chunks: Sequence[EvaluationChunk],
        published: PublishedPolicy,
        publish_again: Callable[[], PublishedPolicy] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Index and result of each of `chunks`, as they are done; for actors that have no tickets.

        `publish_again` gives the same weights once more, should no node have them any more.
        """
        queue = ChunkQueue(chunks)
        while not queue.is_done:
            for actor in self.free_actors(published):
                taken = queue.take(actor)
                if taken is None:
                    break
                self.submit_chunk(actor, *taken, published)
            events = self._wait_and_collect()
            for event in events:
                if isinstance(event, ChunkDone):
                    queue.finish(event.index)
                    yield event.index, event.result
                elif isinstance(event, LostActor | LostChunk):
                    queue.give_back(event.actor)
                    self._tell_lost(event)
            if any(isinstance(event, LostChunk) and event.lost == "weights" for event in events):
                assert publish_again is not None, "nobody can publish the weights again"
                published = publish_again()

    def shutdown(self) -> None:
        for member in self._own.values():
            self._ray.kill(member.actor)
        self._members.clear()

    def _wait_and_collect(self) -> list[PoolEvent]:
        self._on_wait()
        self._ray.ready(self.waiting_for(), timeout=POLL_SECONDS)
        return self.collect()

    def _late_results(self) -> list[PoolEvent]:
        """Results of actors that were given up; most calls of theirs end with their death."""
        events: list[PoolEvent] = []
        for reference in self._ray.ready(list(self._given_up)):
            name, call = self._given_up.pop(reference)
            with suppress(Exception):  # whatever it failed with: others do its work
                events.append(answer_to(self._ray, name, reference, call))
        return events

    def _tell_lost(self, lost: LostActor | LostChunk) -> None:
        """Of an actor without tickets, or its chunk; of others the driver tells, which knows their tickets."""
        if isinstance(lost, LostActor):
            self._tell(ActorLost(lost.actor, lost.reason, tickets=[]))
        else:
            self._tell(lost.fact())

    def _dismiss(self, name: str) -> None:
        self._ray.kill(self._members.pop(name).actor)
        self._tell(ActorLeft(name))

    def _report_overdue(self, name: str, member: Member) -> None:
        is_late = not member.is_ready and self._ray.clock() - member.asked_at >= OVERDUE_SECONDS
        if is_late and not member.is_overdue:
            member.is_overdue = True
            self._tell(ActorPending(name, self._needs()))

    def _needs(self) -> str:
        actors = self._recipe.actors
        free = self._ray.free_resources()
        return needs_text(actors.num_cpus, actors.num_gpus, actors.label_selector, free)

    def _add(self) -> None:
        actors = self._recipe.actors
        name = f"actor-{self._num_started}"
        self._num_started += 1
        actor = self._ray.start(
            self._actor_class,
            self._recipe,
            name,
            self._job,
            concurrency_groups={READING: 1, FETCHING: 1},
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            label_selector=actors.label_selector,
        )
        self._members[name] = Member(actor, actor.describe.remote(), self._ray.clock())

    def _fill(self) -> None:
        """Ask for the actors that are wanted and not yet there, as many as may load at a time."""
        staying = [member for member in self._own.values() if not member.is_leaving]
        ready = sum(member.is_ready for member in staying)
        for _ in range(next_wave(self._num_wanted, ready, len(staying) - ready)):
            self._add()

    def _welcome(self, name: str) -> None:
        member = self._members[name]
        description: ActorDescription = self._ray.get(member.description)
        member.welcome(name, description.node, description.code)
        self._tell(ActorJoined(name, description.node, description.pid, description.device))

    def _require_progress(self, name: str, member: Member) -> None:
        limit = self._recipe.actors.ticket_timeout_seconds * self._recipe.actors.tickets_in_flight
        if member.has_hung(self._ray.clock(), limit):
            raise NoAnswerError(f"{name} has not answered for {limit:.0f} s")

    def _give_up(self, name: str) -> None:
        """Another takes the place of an actor that was to stay."""
        member = self._members.pop(name)
        self._given_up |= {result: (name, call) for result, call in member.calls.items() if call.chunk is None}
        if member.is_guest:
            self._guests.lose(name)
            return
        self._ray.kill(member.actor)
        if member.is_leaving:
            return
        self.num_restarts += 1
        if self.num_restarts > self._recipe.actors.max_restarts:
            raise ClusterError(
                f"{self.num_restarts} reward actors were lost, more than actors.max_restarts "
                f"({self._recipe.actors.max_restarts}): see events.jsonl for the reasons"
            )
