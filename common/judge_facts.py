"""The events of a run's judge actors: like those of its reward actors, under names of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.facts import Fact


@dataclass(frozen=True)
class JudgePending(Fact):
    actor: str
    needs: str  # the resources it waits for, and the free ones


@dataclass(frozen=True)
class JudgeJoined(Fact):
    actor: str
    node: str
    pid: int
    device: str


@dataclass(frozen=True)
class JudgeLeft(Fact):
    """It was scaled away after finishing its work."""

    actor: str


@dataclass(frozen=True)
class JudgeLost(Fact):
    """It died or hung. Others judge its tickets, and its chunks of an evaluation."""

    actor: str
    reason: str
    tickets: Sequence[int]
    chunks: Sequence[int] = ()


@dataclass(frozen=True)
class JudgesScaled(Fact):
    before: int  # wanted
    after: int
    reason: str


@dataclass(frozen=True)
class JudgesNotScaled(Fact):
    """The cluster will never hold so many; the number stays."""

    asked: int
    reason: str
