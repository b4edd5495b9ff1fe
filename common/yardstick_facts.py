"""The events of a scoring of what a run's result is held against."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.facts import Fact


@dataclass(frozen=True)
class YardstickStarted(Fact):
    what: str  # is trained, for the result to be held against


@dataclass(frozen=True)
class YardstickScored(Fact):
    what: str  # the result is to be held against
    scores: Mapping[str, float]
