"""How fast a run goes: each actor's rate over its recent deliveries, and the time to the end."""

import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.types import GroupReceipt

RECENT_STEPS = 10
RECENT_DELIVERIES = 10


class Pace:
    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._step_seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._deliveries: dict[str, deque[tuple[float, int]]] = defaultdict(
            lambda: deque(maxlen=RECENT_DELIVERIES)
        )
        self._versions: dict[str, int] = {}

    def learned(self, step_seconds: float) -> None:
        self._step_seconds.append(step_seconds)

    def delivered(self, actor: str, receipt: GroupReceipt) -> None:
        self._deliveries[actor].append((self._clock(), receipt.num_groups))
        self._versions[actor] = receipt.policy_version

    def eta_seconds(self, steps_left: int) -> float | None:
        """At the pace of the recent steps; None before the first."""
        if not self._step_seconds:
            return None
        return steps_left * sum(self._step_seconds) / len(self._step_seconds)

    def actors(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """`states` with each actor's policy version and rate; actors that are gone are forgotten."""
        for name in self._deliveries.keys() - states.keys():
            del self._deliveries[name], self._versions[name]
        return {
            name: {
                **state,
                "policy_version": self._versions.get(name),
                "groups_per_second": self._groups_per_second(name),
            }
            for name, state in states.items()
        }

    def _groups_per_second(self, actor: str) -> float | None:
        """From the oldest of its recent deliveries to now; None before the second."""
        deliveries = list(self._deliveries.get(actor, ()))
        if len(deliveries) < 2:
            return None
        (start, _), *others = deliveries
        return sum(num_groups for _, num_groups in others) / max(self._clock() - start, 1e-3)


def last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Step and age of the newest in a run's checkpoints/; None without one."""
    steps = {path: match for path in folder.glob("step-*") if (match := re.fullmatch(r"step-(\d+)", path.name))}
    newest = max(steps, key=lambda path: int(steps[path][1]), default=None)
    if newest is None:
        return None
    return {"step": int(steps[newest][1]), "seconds_ago": max(0.0, time.time() - newest.stat().st_mtime)}
