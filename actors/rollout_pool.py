"""The reward actors of a run: starts them, keeps each busy, and replaces those that die or hang.

The pool knows which call belongs to which actor. What a ticket means, and whether a delivery still counts,
is the ledger's business; which chunks of an evaluation are still to be done is the chunk queue's.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.evaluation.chunk_queue import ChunkQueue
from actors.evaluation.chunks import EvaluationChunk
from actors.pool_events import Delivery, Event, Loss, LostTicket, Published, Scored
from actors.rollout_actor import READING, ActorDescription, RolloutActor, WeightsLostError
from common.config.recipe import Recipe
from common.errors import ClusterError, first_line
from common.machine import needs_text
from common.paths import code_fingerprint
from common.types import WorkTicket

log = logging.getLogger("vapi.actors")

POLL_SECONDS = 0.5
OVERDUE_SECONDS = 30.0

DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)

# ray.remote knows concurrency_groups; its type hints do not
_RemoteActor: Any = ray.remote(concurrency_groups={READING: 1})(RolloutActor)  # type: ignore[call-overload]


@dataclass(frozen=True)
class _Call:
    """Either a ticket, whose receipt comes with its groups, or a chunk."""

    made_at: float
    ticket_id: int = -1
    version: int = -1
    receipt: ray.ObjectRef | None = None
    chunk: int | None = None


@dataclass
class _Member:
    handle: Any
    ready: ray.ObjectRef | None  # of its description; None once it has given it
    asked_at: float
    node: str = ""
    code: str = ""  # fingerprint of what it runs
    is_leaving: bool = False  # finishes what it has, gets no more
    is_overdue: bool = False  # not ready for long, and reported
    calls: dict[ray.ObjectRef, _Call] = field(default_factory=dict)
    """By the reference to what the call returns: groups, or a chunk's result."""


class RolloutPool:
    def __init__(self, recipe: Recipe, on_event: Callable[..., None], on_wait: Callable[[], None]):
        """`on_event` is told of actors joining and leaving; `on_wait` is called now and then in long waits."""
        self._recipe = recipe
        self._on_event = on_event
        self._on_wait = on_wait
        self._members: dict[str, _Member] = {}
        self._num_started = 0
        self._given_up: dict[ray.ObjectRef, tuple[str, _Call]] = {}  # tickets of lost actors
        self.num_restarts = 0

    def __len__(self) -> int:
        """Actors that are ready."""
        return sum(member.ready is None for member in self._members.values())

    @property
    def num_wanted(self) -> int:
        """Actors that are to stay, ready or not."""
        return sum(not member.is_leaving for member in self._members.values())

    def states(self) -> dict[str, dict[str, Any]]:
        """Where each actor is and what it does; node and code are empty where it is not ready."""
        return {
            name: {
                "node": member.node,
                "code": member.code,
                "calls": len(member.calls),
                "is_leaving": member.is_leaving,
            }
            for name, member in self._members.items()
        }

    def resize(self, count: int) -> None:
        """Have `count` actors: new ones load meanwhile; those that leave finish what they have first."""
        staying = [member for member in self._members.values() if not member.is_leaving]
        leaving = [member for member in self._members.values() if member.is_leaving]
        for member in leaving[: max(0, count - len(staying))]:
            member.is_leaving = False
        for _ in range(count - self.num_wanted):
            self._add()
        staying.sort(key=lambda member: (member.ready is None, len(member.calls)))
        for member in staying[: max(0, len(staying) - count)]:
            member.is_leaving = True

    def start(self) -> None:
        """Ask for the recipe's actors; they load in parallel."""
        for _ in range(self._recipe.actors.count):
            self._add()

    def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until every actor is ready, or one is and the others have had their time.

        Raises ClusterError where none could be placed.
        """
        start = time.monotonic()
        first_ready = None
        while len(self) < len(self._members):
            now = time.monotonic()
            if len(self) and first_ready is None:
                first_ready = now
            if first_ready is not None and now - first_ready > OVERDUE_SECONDS:
                return
            if first_ready is None and now - start > timeout_seconds:
                actors = self._recipe.actors
                raise ClusterError(
                    f"no reward actor was ready within {timeout_seconds:.0f} s: each needs {self._needs()}; lower "
                    f"actors.count ({actors.count}) or what they need, or add nodes"
                )
            self._on_wait()
            ray.wait(self.waiting_for(), timeout=POLL_SECONDS)
            for event in self.collect():
                if isinstance(event, Loss):
                    self._tell_lost(event)

    def free_actors(self) -> Iterator[str]:
        """Actors that can take one more ticket, the least busy first; asked anew after each."""
        while True:
            ready = {
                name: member
                for name, member in self._members.items()
                if member.ready is None and not member.is_leaving
            }
            name = min(ready, key=lambda name: len(ready[name].calls), default=None)
            if name is None or len(ready[name].calls) >= self._recipe.actors.tickets_in_flight:
                return
            yield name

    def submit(self, actor: str, ticket: WorkTicket, published: Published) -> None:
        member = self._members[actor]
        if member.calls:  # it will wait behind them
            member.handle.read_ahead.remote(ticket.sample_indices)
        receipt, groups = member.handle.roll_out.options(num_returns=2).remote(
            ticket, published.version, [published.snapshot]
        )
        member.calls[groups] = _Call(time.monotonic(), ticket.ticket_id, published.version, receipt)

    def submit_chunk(self, actor: str, index: int, chunk: EvaluationChunk, published: Published) -> None:
        member = self._members[actor]
        result = member.handle.evaluate.remote(chunk, published.version, [published.snapshot])
        member.calls[result] = _Call(time.monotonic(), chunk=index)

    def waiting_for(self) -> list[ray.ObjectRef]:
        """References that become ready when `collect` has something to give."""
        starting = [member.ready for member in self._members.values() if member.ready is not None]
        return starting + [call for member in self._members.values() for call in member.calls]

    def collect(self) -> list[Event]:
        """What finished or failed since the last call; never waits.

        Lost actors are replaced; should one of them be alive somewhere and answer late, that is an event like
        any other, and the ledger refuses it. An actor's own exception (a bug, or a data set that is gone) is
        raised.
        """
        events = self._late_results()
        for name, member in list(self._members.items()):
            try:
                if member.ready is not None and _is_ready(member.ready):
                    self._welcome(name)
                for reference in [reference for reference in member.calls if _is_ready(reference)]:
                    events.append(_result(name, reference, member.calls.pop(reference)))
                self._require_progress(name, member)
                self._report_overdue(name, member)
                if member.is_leaving and not member.calls:
                    self._dismiss(name)
            except (*DEATHS, TimeoutError) as error:
                events.append(Loss(name, first_line(error)))
                self._replace(name)
        return events

    def evaluate(self, chunks: Sequence[EvaluationChunk], published: Published) -> Iterator[tuple[int, Any]]:
        """Index and result of each of `chunks`, as they are done; for actors that have no tickets."""
        queue = ChunkQueue(chunks)
        while not queue.is_done:
            self._on_wait()
            for actor in self.free_actors():
                taken = queue.take(actor)
                if taken is None:
                    break
                self.submit_chunk(actor, *taken, published)
            ray.wait(self.waiting_for(), timeout=POLL_SECONDS)
            for event in self.collect():
                if isinstance(event, Scored):
                    queue.finish(event.index)
                    yield event.index, event.result
                elif isinstance(event, Loss):
                    queue.give_back(event.actor)
                    self._tell_lost(event)

    def shutdown(self) -> None:
        for member in self._members.values():
            ray.kill(member.handle)
        self._members.clear()

    def _late_results(self) -> list[Event]:
        """Results of actors that were given up; most calls of theirs end with their death."""
        events: list[Event] = []
        for reference in [reference for reference in self._given_up if _is_ready(reference)]:
            name, call = self._given_up.pop(reference)
            with suppress(ray.exceptions.RayError):
                events.append(_result(name, reference, call))
        return events

    def _tell_lost(self, loss: Loss) -> None:
        """Of an actor that had no tickets; of others the driver tells, which knows theirs."""
        self._on_event("actor_lost", actor=loss.actor, reason=loss.reason, tickets=[])

    def _dismiss(self, name: str) -> None:
        ray.kill(self._members.pop(name).handle)
        self._on_event("actor_left", actor=name)

    def _report_overdue(self, name: str, member: _Member) -> None:
        if member.ready is None or member.is_overdue or time.monotonic() - member.asked_at < OVERDUE_SECONDS:
            return
        member.is_overdue = True
        log.warning("%s is not ready after %.0f s: it waits for %s", name, OVERDUE_SECONDS, self._needs())
        self._on_event("actor_pending", actor=name, needs=self._needs())

    def _needs(self) -> str:
        actors = self._recipe.actors
        return needs_text(actors.num_cpus, actors.num_gpus, actors.label_selector, ray.available_resources())

    def _add(self) -> None:
        actors = self._recipe.actors
        name = f"actor-{self._num_started}"
        self._num_started += 1
        handle = _RemoteActor.options(
            num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, label_selector=actors.label_selector
        ).remote(self._recipe, name)
        self._members[name] = _Member(handle, handle.describe.remote(), time.monotonic())

    def _welcome(self, name: str) -> None:
        member = self._members[name]
        assert member.ready is not None
        description: ActorDescription = ray.get(member.ready)
        if description.code != code_fingerprint():
            raise ClusterError(
                f"{name} on {description.node} runs code {description.code}, the driver {code_fingerprint()}: "
                "submit the job with --working-dir so that every node gets this checkout"
            )
        member.ready = None
        member.node, member.code = description.node, description.code
        self._on_event(
            "actor_joined", actor=name, node=description.node, pid=description.pid, device=description.device
        )

    def _require_progress(self, name: str, member: _Member) -> None:
        limit = self._recipe.actors.ticket_timeout_seconds * self._recipe.actors.tickets_in_flight
        for call in member.calls.values():
            if time.monotonic() - call.made_at > limit:
                raise TimeoutError(f"{name} has not answered for {limit:.0f} s")

    def _replace(self, name: str) -> None:
        member = self._members.pop(name)
        tickets = {reference: call for reference, call in member.calls.items() if call.chunk is None}
        self._given_up |= {reference: (name, call) for reference, call in tickets.items()}
        ray.kill(member.handle)
        if member.is_leaving:
            return
        self.num_restarts += 1
        if self.num_restarts > self._recipe.actors.max_restarts:
            raise ClusterError(
                f"{self.num_restarts} reward actors were lost, more than actors.max_restarts "
                f"({self._recipe.actors.max_restarts}): see events.jsonl for the reasons"
            )
        self._add()


def _result(actor: str, reference: ray.ObjectRef, call: _Call) -> Event:
    if call.chunk is not None:
        return Scored(actor, call.chunk, ray.get(reference))
    try:
        receipt = ray.get(call.receipt)  # type: ignore[arg-type]
    except WeightsLostError:
        return LostTicket(actor, call.ticket_id, call.version, "weights")
    try:
        return Delivery(actor, receipt, reference, ray.get(reference))
    except ray.exceptions.ObjectLostError:
        return LostTicket(actor, call.ticket_id, call.version, "groups")


def _is_ready(reference: ray.ObjectRef) -> bool:
    done, _ = ray.wait([reference], timeout=0)
    return bool(done)
