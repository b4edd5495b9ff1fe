"""What a run folder holds, read for people: a run may still be writing it, or have been killed while it did."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import RecipeError
from common.paths import find_run, places_text

ENDINGS = ("succeeded", "stopped", "failed")
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class RunRecords:
    """One run's files. Numbers that were not finite are None."""

    folder: Path
    recipe: dict[str, Any]
    steps: list[dict[str, Any]]  # metrics.jsonl
    evaluations: list[dict[str, Any]]
    events: list[dict[str, Any]]
    before: dict[str, Any]  # scores of the base; empty where none were taken
    ending: dict[str, Any]  # summary.json; empty while the run has not ended
    num_unreadable: int = 0  # lines that are no JSON: the last of a killed run

    @cached_property
    def status(self) -> str:
        """How it ended, or "unfinished"."""
        return str(self.ending.get("status", UNFINISHED))

    @cached_property
    def scores(self) -> dict[str, Any]:
        """All scores at the end; of a run without an end, those of the base. Empty without an evaluation."""
        return self.ending.get("evaluation") or self.before

    @cached_property
    def better(self) -> dict[str, str]:
        """What is better, of terms of somebody's own; empty of a run without them."""
        return better_of([self.scores, *self.steps])

    @cached_property
    def is_served(self) -> bool:
        """Whether actors and learner are processes of their own, and not one as in `local`."""
        return not self.steps or any(line.get("num_actors") for line in self.steps)

    @cached_property
    def num_steps(self) -> int | None:
        """Steps that the recipe asks for."""
        return self.recipe.get("learner", {}).get("num_steps")

    @cached_property
    def last_step(self) -> int:
        return self.steps[-1]["step"] if self.steps else 0

    @cached_property
    def times(self) -> list[datetime]:
        return [time for event in self.events if (time := time_of(event))]


def read_run(run: str) -> RunRecords:
    """The records of `run`, a run folder or a name in runs/. RecipeError where there is none."""
    folder = find_run(run)
    if folder is None:
        raise RecipeError(f"there is no run folder {places_text(run)}: a folder with a recipe.json is needed")
    logs = [_lines(folder / f"{name}.jsonl") for name in ("metrics", "evaluations", "events")]
    (steps, broken_steps), (evaluations, broken_evaluations), (events, broken_events) = logs
    return RunRecords(
        folder=folder,
        recipe=_object(folder / "recipe.json"),
        steps=[line for line in steps if isinstance(line.get("step"), int)],
        evaluations=[line for line in evaluations if isinstance(line.get("step"), int)],
        events=events,
        before=_object(folder / "before.json"),
        ending={} if _is_at_work_again(events) else _object(folder / "summary.json"),
        num_unreadable=broken_steps + broken_evaluations + broken_events,
    )


def better_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Whether "higher" or "lower" is better, by the names of terms of somebody's own, as lines of metrics.jsonl or
    scores say it. Runs of a former version do not.
    """
    better: dict[str, str] = {}
    for line in lines:
        said = line.get("better")
        better |= said if isinstance(said, dict) else {}
    return better


def time_of(event: dict[str, Any]) -> datetime | None:
    """When an event happened, where its time can be read."""
    try:
        return datetime.fromisoformat(event["time"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_at_work_again(events: list[dict[str, Any]]) -> bool:
    """Whether the run was started after its last ending, so that its summary is of the time before."""
    marks = [event.get("event") for event in events if event.get("event") in ("started", *ENDINGS)]
    return bool(marks) and marks[-1] == "started"


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON lines file, and how many lines are none."""
    if not path.is_file():
        return [], 0
    values = [_value(line) for line in path.read_text(errors="replace").splitlines() if line.strip()]
    objects = [value for value in values if isinstance(value, dict)]
    return objects, len(values) - len(objects)


def _object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none."""
    value = _value(path.read_text(errors="replace")) if path.is_file() else None
    return value if isinstance(value, dict) else {}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None
