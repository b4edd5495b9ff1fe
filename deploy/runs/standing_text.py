"""How runs stand, for people to read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from deploy.runs.status_text import checkpoint_text, time_text

_COLUMNS = ("run", "state", "step", "last event")


def standing_text(standing: dict[str, Any]) -> str:
    """Of one run."""
    state = standing["state"]
    if standing["held_by"]:
        state += f" ({standing['held_by']})"
    lines = [f"state       {state}{_ago(standing['last_event'], ', last event {}')}"]
    if standing["error"]:
        lines.append(f"error       {standing['error']}")
    lines.append(f"step        {_step(standing)}")
    lines.append(f"checkpoint  {checkpoint_text(standing['last_checkpoint'])}")
    lines.append(f"run folder  {standing['folder']}")
    if standing["next"]:
        lines.append(f"next        {standing['next']}")
    return "\n".join(lines)


def standings_text(standings: Sequence[dict[str, Any]], runs: str) -> str:
    """A row a run."""
    if not standings:
        return f"there are no runs in {runs}"
    rows = [_COLUMNS, *((each["run"], each["state"], _step(each), _ago(each["last_event"])) for each in standings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _step(standing: dict[str, Any]) -> str:
    steps = standing["num_steps"]
    return f"{standing['step']} of {'?' if steps is None else steps}"


def _ago(time: str | None, form: str = "{}") -> str:
    if time is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())
    return form.format(f"{time_text(seconds)} ago")
