"""The events of a run for people: what is frequent is told once for the time between two that are not."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.runs.records import time_of

Event = dict[str, Any]
MAX_ROWS = 120
MAX_DETAILS = 20


@dataclass(frozen=True)
class Row:
    clock: str  # of the first
    since_start: str
    tone: str  # "bad", "warn", "good" or ""
    text: str
    details: list[str] = field(default_factory=list)  # of the single events, where several are told at once
    num_left_out: int = 0


@dataclass(frozen=True)
class Timeline:
    first: list[Row]
    num_left_out: int
    last: list[Row]


def timeline(events: Sequence[Event], folder: Path) -> Timeline:
    start = next((time for event in events if (time := time_of(event))), None)
    rows = [_row(group, start, folder) for group in _groups(events)]
    if len(rows) <= MAX_ROWS:
        return Timeline(rows, 0, [])
    half = MAX_ROWS // 2
    return Timeline(rows[:half], len(rows) - 2 * half, rows[-half:])


def _groups(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Single events that matter alone; between them the frequent ones, those of a kind together."""
    frequent: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        kind = str(event.get("event"))
        if kind in _FREQUENT:
            frequent[kind].append(event)
            continue
        yield from frequent.values()
        frequent.clear()
        yield [event]
    yield from frequent.values()


def _row(group: list[Event], start: datetime | None, folder: Path) -> Row:
    kind, time = str(group[0].get("event")), time_of(group[0])
    clock = f"{time.astimezone(UTC):%H:%M:%S}" if time else ""
    since = _elapsed((time - start).total_seconds()) if time and start else ""
    tone = next((tone for tone, kinds in _TONES.items() if kind in kinds), "")
    if len(group) == 1:
        return Row(clock, since, tone, _sentence(group[0], folder))
    details = [] if kind == "step_learned" else [_sentence(event, folder) for event in group[:MAX_DETAILS]]
    return Row(
        clock, since, tone, _told_together(kind, group), details, len(group) - len(details) if details else 0
    )


def _told_together(kind: str, group: list[Event]) -> str:
    numbers = [event["step"] for event in group if isinstance(event.get("step"), int)]
    text = _FREQUENT[kind].format(count=f"{len(group):,}")
    return f"{text} ({min(numbers)} to {max(numbers)})" if numbers else text


def _sentence(event: Event, folder: Path) -> str:
    """The event in words; one that is not known here, or lacks a fact, as it was written."""
    kind = str(event.get("event"))
    facts = {key: _relative(value, folder) for key, value in event.items() if key not in ("time", "event")}
    try:
        if kind in _SENTENCES:
            return _SENTENCES[kind](facts)
    except (KeyError, TypeError, ValueError):
        pass
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    return f"{kind.replace('_', ' ')}{': ' if told else ''}{told}"


def _relative(value: Any, folder: Path) -> Any:
    """A path inside the run folder without the folder."""
    return value.removeprefix(f"{folder}/") if isinstance(value, str) else value


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"+{hours}:{minutes:02d}:{rest:02d}" if hours else f"+{minutes}:{rest:02d}"


def _skipped(facts: Event) -> str:
    what = "quarantined" if facts.get("is_quarantined") else "skipped"
    return f"image {facts['image_id']} {what}: {facts['reason']}"


def _started(facts: Event) -> str:
    return f"resumed from {facts['resumed_from']}" if facts.get("resumed_from") else "started"


_FREQUENT = {
    "step_learned": "{count} steps learned",
    "checkpoint": "{count} checkpoints, of steps",
    "image_skipped": "{count} images skipped",
    "ticket_dropped": "{count} tickets dropped as stale",
    "groups_quarantined": "groups quarantined in {count} steps",
    "step_skipped": "{count} updates skipped: the gradient was no finite number; steps",
}

_TONES = {
    "bad": {"failed", "actor_lost", "rank_lost", "learner_lost", "tracker_failed", "tracking_behind"},
    "warn": {
        "step_skipped", "groups_quarantined", "image_skipped", "ticket_dropped", "actor_pending", "stopped",
        "stop_asked_for",
    },
    "good": {"succeeded"},
}  # fmt: skip

_SENTENCES: dict[str, Callable[[Event], str]] = {
    "started": _started,
    "succeeded": lambda facts: f"succeeded after {facts['steps']} steps",
    "stopped": lambda facts: f"stopped after {facts['steps']} steps",
    "failed": lambda facts: f"failed: {facts['error']}",
    "stop_asked_for": lambda _: "asked to stop",
    "step_learned": lambda facts: f"step {facts['step']} learned",
    "checkpoint": lambda facts: f"checkpoint of step {facts['step']}",
    "scaled": lambda facts: f"reward actors {facts['before']} → {facts['after']}: {facts['reason']}",
    "actor_joined": lambda facts: f"{facts['actor']} joined on {facts['node']} ({facts['device']})",
    "actor_left": lambda facts: f"{facts['actor']} left",
    "actor_lost": lambda facts: f"{facts['actor']} lost with {len(facts['tickets'])} tickets: {facts['reason']}",
    "actor_pending": lambda facts: f"{facts['actor']} is not placed: it waits for {facts['needs']}",
    "rank_joined": lambda facts: f"learner rank {facts['rank']} joined on {facts['node']} at step {facts['step']}",
    "rank_lost": lambda facts: f"learner rank {facts['rank']} lost at step {facts['step']}: {facts['reason']}",
    "learner_lost": lambda facts: f"learner lost: {facts['reason']}; going on from {facts['resumed_from']}",
    "ticket_dropped": lambda facts: f"ticket {facts['ticket']} dropped: {facts['reason']}",
    "image_skipped": _skipped,
    "groups_quarantined": lambda facts: f"{facts['num_groups']} groups quarantined in step {facts['step']}",
    "step_skipped": lambda facts: f"update of step {facts['step']} skipped: gradient norm {facts['grad_norm']}",
}
