"""What `status` is told of a running job: the state of the moment, how fast it goes, and its newest events."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from common.config.recipe import Recipe
from common.facts import Fact, StepLearned, TicketDelivered
from deploy.runs.wording import wording_of
from learner.checkpoint_names import step_of

if TYPE_CHECKING:
    from actors.judge_pool import JudgePool

RECENT_STEPS = 10
RECENT_DELIVERIES = 10
RECENT_EVENTS = 6


@dataclass(frozen=True)
class JudgesState:
    """Of the judge actors at one moment; of a run that has none, nothing."""

    states: Mapping[str, Mapping[str, Any]]  # by name: node, code, calls, is_leaving
    wanted: int
    restarts: int
    most: int  # that can be asked for
    tickets_waiting: int  # that no judge has yet

    @classmethod
    def of(cls, judges: "JudgePool | None") -> Self | None:
        if judges is None:
            return None
        return cls(judges.states(), judges.num_wanted, judges.num_restarts, judges.most, judges.num_waiting)

    @property
    def ready(self) -> int:
        return sum(bool(judge["node"]) for judge in self.states.values())


@dataclass(frozen=True)
class LoopState:
    """Of the driver's loop at one moment."""

    step: int
    policy_version: int
    tickets_learned: int
    num_tickets: int  # of the whole run
    groups_learned: int
    images_skipped: int
    groups_buffered: int
    bytes_buffered: int
    actors: Mapping[str, Mapping[str, Any]]  # by name: node, code, calls, is_leaving, is_guest
    actors_wanted: int
    actor_restarts: int
    actors_most: int  # that can be asked for
    judges: JudgesState | None = None

    @property
    def actors_ready(self) -> int:
        """Without the learner ranks that roll out as well."""
        return sum(bool(actor["node"]) for actor in self.actors.values() if not actor.get("is_guest"))


class Status:
    """A sink that remembers what `status` shows."""

    def __init__(self, recipe: Recipe, checkpoints: Path, clock: Callable[[], float] = time.monotonic):
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._clock = clock
        self._step_seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._deliveries: dict[str, deque[tuple[float, int]]] = defaultdict(
            lambda: deque(maxlen=RECENT_DELIVERIES)
        )
        self._versions: dict[str, int] = {}
        self._last_step: dict[str, Any] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=RECENT_EVENTS)  # routine left out

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned):
            self._last_step = fact.metrics()
            self._step_seconds.append(fact.step_seconds)
        elif isinstance(fact, TicketDelivered):
            for name in filter(None, (fact.actor, fact.judge)):
                self._deliveries[name].append((self._clock(), fact.receipt.num_groups))
            self._versions[fact.actor] = fact.receipt.policy_version
        if not wording_of(fact.event).is_routine:
            self._events.append({"time": datetime.now(UTC).isoformat(), "event": fact.event, **fact.told()})

    def of(self, state: LoopState) -> dict[str, Any]:
        """The answer to `status`."""
        num_steps = self._recipe.learner.num_steps
        self._forget({*state.actors, *(state.judges.states if state.judges else ())})
        return {
            "run": self._recipe.run.name,
            "step": state.step,
            "num_steps": num_steps,
            "policy_version": state.policy_version,
            "eta_seconds": self._eta_seconds(num_steps - state.step),
            "actors": self._actors(state.actors),
            "actors_wanted": state.actors_wanted,
            "actors_most": state.actors_most,
            "groups_buffered": state.groups_buffered,
            "buffer_capacity": self._recipe.buffer_capacity,
            "last_checkpoint": last_checkpoint(self._checkpoints),
            "recent_events": list(self._events),
            "groups_learned": state.groups_learned,
            "images_skipped": state.images_skipped,
            "actor_restarts": state.actor_restarts,
            "last_step": self._last_step,
            "judges": None if state.judges is None else self._judges(state.judges),
        }

    def _judges(self, judges: JudgesState) -> dict[str, Any]:
        """As `JudgesState`; each judge with its rate."""
        states = {
            name: {**judge, "groups_per_second": self._groups_per_second(name)}
            for name, judge in judges.states.items()
        }
        return {**vars(judges), "states": states}

    def _eta_seconds(self, steps_left: int) -> float | None:
        """At the pace of the recent steps; None before the first."""
        if not self._step_seconds:
            return None
        return steps_left * sum(self._step_seconds) / len(self._step_seconds)

    def _actors(self, actors: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Each with its policy version and rate."""
        return {
            name: {
                **actor,
                "policy_version": self._versions.get(name),
                "groups_per_second": self._groups_per_second(name),
            }
            for name, actor in actors.items()
        }

    def _forget(self, here: set[str]) -> None:
        """Actors that are gone."""
        for name in self._deliveries.keys() - here:
            del self._deliveries[name]
            self._versions.pop(name, None)

    def _groups_per_second(self, actor: str) -> float | None:
        """From the oldest of its recent deliveries to now; None before the second."""
        deliveries = list(self._deliveries.get(actor, ()))
        if len(deliveries) < 2:
            return None
        (start, _), *others = deliveries
        return sum(num_groups for _, num_groups in others) / max(self._clock() - start, 1e-3)


def last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Step and age of the newest in a run's checkpoints/; None without one."""
    newest = max(folder.glob("step-*"), key=lambda path: step_of(path.name), default=None)
    if newest is None or step_of(newest.name) < 0:
        return None
    return {"step": step_of(newest.name), "seconds_ago": max(0.0, time.time() - newest.stat().st_mtime)}
