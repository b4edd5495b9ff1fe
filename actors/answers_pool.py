"""What an actor's answer to a call comes to, for the pool: a delivery, or what was lost on the way."""

from typing import Any

from actors.pool_events import ChunkDone, Delivery, LostChunk, LostTicket, PoolEvent, RolledOut, UnjudgedChunk
from actors.pool_members import Call
from actors.rollout_actor import WeightsLostError
from common.ray_calls_group import RayCalls, ValueLostError


def answer_to(ray: RayCalls, actor: str, reference: Any, call: Call) -> PoolEvent:
    """The event of a `reference` that is ready. Raises ProcessLostError, and what the actor raised."""
    if call.chunk is not None:
        return _chunk_answer(ray, actor, reference, call.chunk, call)
    try:
        receipt = ray.get(call.receipt)
    except WeightsLostError:
        return LostTicket(actor, call.ticket_id, call.version, "weights")
    if receipt.awaits_judges:
        return RolledOut(actor, receipt, call.groups)
    try:
        return Delivery(actor, receipt, call.groups, ray.get(call.groups))
    except ValueLostError:
        return LostTicket(actor, call.ticket_id, call.version, "groups")


def _chunk_answer(ray: RayCalls, actor: str, reference: Any, index: int, call: Call) -> PoolEvent:
    try:
        result = ray.get(reference)
    except WeightsLostError:
        return LostChunk(actor, index, call.version, "weights")
    except ValueLostError:
        return LostChunk(actor, index, call.version, "result")
    if result is None:
        return UnjudgedChunk(actor, index, call.version, call.unjudged)
    return ChunkDone(actor, index, result)
