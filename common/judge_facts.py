"""The events of a run's judge actors: those of its reward actors, under names of their own."""

from dataclasses import dataclass

from common.facts import ActorJoined, ActorLeft, ActorLost, ActorPending
from common.request_facts import Scaled, ScaleRefused


@dataclass(frozen=True)
class JudgePending(ActorPending):
    """It is not placed."""


@dataclass(frozen=True)
class JudgeJoined(ActorJoined):
    """It is ready."""


@dataclass(frozen=True)
class JudgeLeft(ActorLeft):
    """It was scaled away after finishing its work."""


@dataclass(frozen=True)
class JudgeLost(ActorLost):
    """It died or hung. Others judge its tickets."""


@dataclass(frozen=True)
class JudgesScaled(Scaled):
    """Another number of them is wanted."""


@dataclass(frozen=True)
class JudgesNotScaled(ScaleRefused):
    """The cluster will never hold so many; the number stays."""
