"""Where the seconds go: of the actors by stage, of the learner by stage and waiting."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.reporting.numbers import finite, is_number, short


@dataclass(frozen=True)
class Bar:
    name: str
    seconds: str
    share: float  # of the whole
    length: float  # of the longest bar


@dataclass(frozen=True)
class StageTimes:
    title: str
    note: str
    bars: list[Bar]


def stage_times(steps: Sequence[dict[str, Any]]) -> list[StageTimes]:
    """Means a step; a half without measurements is left out."""
    actors = _sums(steps, "actor_stage_seconds")
    learner = _sums(steps, "stage_seconds")
    if learner:
        waited, whole = (sum(finite(line.get(key) for line in steps)) for key in ("wait_seconds", "step_seconds"))
        learner = ({"wait for groups": waited} if waited else {}) | learner
        learner["publish and the rest"] = max(0.0, whole - sum(learner.values()))
    halves = (
        ("Reward actors", "seconds a step, added up over all actors", actors),
        ("Learner", "seconds of a step", learner),
    )
    return [StageTimes(title, note, _bars(sums, len(steps))) for title, note, sums in halves if sums]


def _sums(steps: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for line in steps:
        stages = line.get(key)
        for stage, seconds in stages.items() if isinstance(stages, Mapping) else ():
            sums[stage.replace("_", " ")] += seconds if is_number(seconds) else 0.0
    return dict(sums)


def _bars(sums: dict[str, float], num_steps: int) -> list[Bar]:
    whole, longest = sum(sums.values()) or 1.0, max(sums.values()) or 1.0
    return [
        Bar(stage, short(seconds / num_steps, 3), seconds / whole, seconds / longest)
        for stage, seconds in sums.items()
    ]
