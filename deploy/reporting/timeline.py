"""The events of a run for people: what is frequent is told once for the time between two that are not."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.runs.records import time_of
from deploy.runs.wording import WORDINGS, wording_of

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
        if wording_of(kind).together:
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
    tone = wording_of(kind).tone
    if len(group) == 1:
        return Row(clock, since, tone, _sentence(group[0], folder))
    details = [] if wording_of(kind).is_routine else [_sentence(event, folder) for event in group[:MAX_DETAILS]]
    return Row(
        clock, since, tone, _told_together(kind, group), details, len(group) - len(details) if details else 0
    )


def _told_together(kind: str, group: list[Event]) -> str:
    numbers = [event["step"] for event in group if isinstance(event.get("step"), int)]
    text = wording_of(kind).together.format(count=f"{len(group):,}")
    return f"{text} ({min(numbers)} to {max(numbers)})" if numbers else text


def _sentence(event: Event, folder: Path) -> str:
    """The event in words; one that is not known here, or lacks a fact, as it was written."""
    kind = str(event.get("event"))
    facts = {key: _relative(value, folder) for key, value in event.items() if key not in ("time", "event")}
    if kind in WORDINGS:
        try:
            return WORDINGS[kind].of(facts)
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
