"""What the pool of reward actors receives and the events it reports."""

from dataclasses import dataclass
from typing import Any, Literal

from common.facts import ChunkLost
from common.types import GroupReceipt

JUDGES = "judges"  # who has a ticket that was rolled out and is not judged yet


@dataclass(frozen=True)
class PublishedPolicy:
    """A policy version that actors can fetch."""

    version: int
    snapshot: Any  # reference to a WeightSnapshot; None where no actor needs it


@dataclass(frozen=True)
class Delivery:
    """A finished ticket. A copy of its groups is on this node, so they outlive their actor."""

    actor: str
    receipt: GroupReceipt
    groups: Any  # reference to their Arrow table
    table: Any  # the table behind `groups`: this node keeps its copy as long as somebody holds it
    judge: str = ""  # the judge actor that completed them, if any

    @property
    def holder(self) -> str:
        """Who has the ticket, as the ledger knows it."""
        return JUDGES if self.judge else self.actor


@dataclass(frozen=True)
class RolledOut:
    """A ticket that judge actors have yet to complete."""

    actor: str  # that rolled it out
    receipt: GroupReceipt
    unjudged: Any  # reference to its UnjudgedGroups, which this process owns and never fetches


@dataclass(frozen=True)
class UnjudgedChunk:
    """A chunk of an evaluation that judge actors have yet to complete."""

    actor: str  # that did it
    index: int
    version: int
    unjudged: Any  # reference to what they need, which this process owns and never fetches


@dataclass(frozen=True)
class LostTicket:
    """A ticket whose actor is alive but whose weights, pictures or groups were lost with a node."""

    actor: str  # or JUDGES
    ticket_id: int
    version: int
    lost: Literal["groups", "weights", "pictures"]


@dataclass(frozen=True)
class ChunkDone:
    """A finished chunk of an evaluation."""

    actor: str
    index: int
    result: Any


@dataclass(frozen=True)
class LostChunk:
    """A chunk whose actor lives, but not what it needed or made: a node went down with it."""

    actor: str  # or JUDGES
    index: int
    version: int
    lost: Literal["result", "weights", "pictures"]

    def fact(self) -> ChunkLost:
        return ChunkLost(self.actor, self.index, self.version, f"{self.lost} lost with a node")


@dataclass(frozen=True)
class LostActor:
    """An actor that died or hung. Its tickets and its chunk must be given to others."""

    actor: str
    reason: str


PoolEvent = Delivery | RolledOut | LostTicket | ChunkDone | UnjudgedChunk | LostChunk | LostActor
JudgeEvent = Delivery | LostTicket | ChunkDone | LostChunk
