"""The events of a run that somebody asks for: its end, or another number of reward actors."""

from dataclasses import dataclass

from common.facts import Fact


@dataclass(frozen=True)
class StopAskedFor(Fact):
    """The running step is finished first."""

    by: str = ""  # the signal; empty: `stop`


@dataclass(frozen=True)
class Scaled(Fact):
    before: int  # actors wanted
    after: int
    reason: str


@dataclass(frozen=True)
class ScaleRefused(Fact):
    """The cluster will never hold so many; the number stays."""

    asked: int
    reason: str
