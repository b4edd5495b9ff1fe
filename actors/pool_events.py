"""What the pool of reward actors is given, and what it gives back."""

from dataclasses import dataclass
from typing import Any, Literal

from common.facts import ChunkLost
from common.types import GroupReceipt


@dataclass(frozen=True)
class PublishedPolicy:
    """A policy version that actors can pull."""

    version: int
    snapshot: Any  # reference to a WeightSnapshot


@dataclass(frozen=True)
class Delivery:
    """A finished ticket. Its groups are on this node, too, and outlive the one that made them."""

    actor: str
    receipt: GroupReceipt
    groups: Any  # reference to their Arrow table
    table: Any  # what `groups` refers to: this node's copy stays as long as somebody holds it


@dataclass(frozen=True)
class LostTicket:
    """A ticket whose actor lives, but not what it needed or made: a node went down with it."""

    actor: str
    ticket_id: int
    version: int
    lost: Literal["groups", "weights"]


@dataclass(frozen=True)
class ChunkDone:
    """A finished chunk of an evaluation."""

    actor: str
    index: int
    result: Any


@dataclass(frozen=True)
class LostChunk:
    """A chunk whose actor lives, but not what it needed or made: a node went down with it."""

    actor: str
    index: int
    version: int
    lost: Literal["result", "weights"]

    def fact(self) -> ChunkLost:
        return ChunkLost(self.actor, self.index, self.version, f"{self.lost} lost with a node")


@dataclass(frozen=True)
class LostActor:
    """It died or hung. Its tickets and its chunk must be given to others."""

    actor: str
    reason: str


PoolEvent = Delivery | LostTicket | ChunkDone | LostChunk | LostActor
