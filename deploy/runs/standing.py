"""How a run stands by its folder: at work, ended or killed, how far it came, and the command that goes on."""

import shlex
from pathlib import Path
from typing import Any

from common.paths import CHECKOUT, resolve
from deploy.runs.records import UNFINISHED, RunRecords, read_run
from deploy.runs.run_lock import holder_text, lock_state
from deploy.runs.status import last_checkpoint

AT_WORK, KILLED = "at work", "killed"


def standing(run: str) -> dict[str, Any]:
    """The answer to `status` where no driver answers. RecipeError where there is no such run."""
    records = read_run(run)
    folder = records.folder
    state = _state(records)
    return {
        "run": folder.name,
        "folder": _shown(folder),
        "state": state,
        "held_by": holder_text(folder) if state == AT_WORK else None,
        "step": max(records.last_step, records.ending.get("steps", 0)),
        "num_steps": records.num_steps,
        "error": records.ending.get("error"),
        "last_event": records.times[-1].isoformat() if records.times else None,
        "last_checkpoint": last_checkpoint(folder / "checkpoints"),
        "next": _next(records, state),
    }


def standings(runs: str = "runs") -> list[dict[str, Any]]:
    """Of every run folder in `runs`, the newest last."""
    folders = [path.parent for path in resolve(runs).glob("*/recipe.json")]
    return sorted((standing(str(folder)) for folder in folders), key=lambda each: each["last_event"] or "")


def is_over(folder: Path) -> bool:
    """Whether certainly no process is at work there."""
    return lock_state(folder) == "free"


def _state(records: RunRecords) -> str:
    if lock_state(records.folder) == "held":
        return AT_WORK
    return KILLED if records.status == UNFINISHED else records.status


def _next(records: RunRecords, state: str) -> str | None:
    """The command to give next; none for a run that is at work."""
    if state == AT_WORK:
        return None
    folder = _shown(records.folder)
    if state == "succeeded":
        return f"python -m deploy report {shlex.quote(folder)}"
    is_served = any(event.get("event") == "started" for event in records.events)
    if not is_served:  # by `local`, which begins anew
        return f"python -m deploy local {shlex.quote(f'{folder}/recipe.json')}"
    goes_on = "" if records.recipe.get("resume", "auto") == "auto" else " resume=auto"
    return f"python -m deploy train {shlex.quote(f'{folder}/recipe.json')}{goes_on}"


def _shown(folder: Path) -> str:
    """As short as it can be given from the checkout."""
    return str(folder.relative_to(CHECKOUT)) if folder.is_relative_to(CHECKOUT) else str(folder)
