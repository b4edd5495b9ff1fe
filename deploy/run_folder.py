"""A run's folder: what it was asked, what it measured, what happened, what came out.

`recipe.json`, `metrics.jsonl` (a line a step), `evaluations.jsonl` (a line an evaluation), `events.jsonl` (a line
an event), `checkpoints/`, `samples/` and, at the end, `summary.json`. The driver is the only writer.
"""

import json
import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.atomic import replacing, write_json
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.paths import resolve
from learner.checkpoint import newest_checkpoint

CONNECTION = "ray.json"
RECENT_EVENTS = 6
ROUTINE = ("step_learned", "checkpoint")


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.recent_events: deque[dict[str, Any]] = deque(maxlen=RECENT_EVENTS)  # routine left out
        self.followers: list[Callable[..., None]] = []  # told what is written: its kind, and the facts
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(
                f"the run folder {path} cannot be made ({error.strerror or error}): set run.dir to a folder that "
                "can be written to"
            ) from None

    def write_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "recipe.json", recipe.model_dump(mode="json"))

    def connection(self, connection: dict[str, Any]) -> None:
        """How `scale`, `stop` and `status` reach the run's Ray: for the run's owner only, it may hold a token."""
        path = self.path / CONNECTION
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(connection))

    def disconnect(self) -> None:
        """The run's Ray is gone."""
        (self.path / CONNECTION).unlink(missing_ok=True)

    def metrics(self, line: dict[str, Any]) -> None:
        _append(self.path / "metrics.jsonl", line)
        self._tell("metrics", line)

    def evaluation(self, line: dict[str, Any]) -> None:
        _append(self.path / "evaluations.jsonl", line)
        self._tell("evaluation", line)

    def picture(self, step: int, path: Path) -> None:
        """A picture in samples/ is complete."""
        self._tell("picture", step, path)

    def event(self, kind: str, **facts: Any) -> None:
        """Something that happened, with the time (UTC) it did."""
        event = {"time": datetime.now(UTC).isoformat(), "event": kind, **facts}
        _append(self.path / "events.jsonl", event)
        if kind not in ROUTINE:
            self.recent_events.append(event)

    def summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)
        self._tell("summary", summary)

    def drop_metrics_from(self, step: int) -> None:
        """Forget the metrics and scores of steps after `step`: a run resumed there does them again."""
        self._tell("rewind", step)
        for path in (self.path / "metrics.jsonl", self.path / "evaluations.jsonl"):
            if path.exists():
                lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
                with replacing(path) as temporary:
                    temporary.write_text("".join(line + "\n" for line in lines))

    def _tell(self, what: str, *facts: Any) -> None:
        for follower in self.followers:
            follower(what, *facts)


def open_run_folder(recipe: Recipe) -> tuple[RunFolder, Path | None]:
    """The run's folder and the checkpoint to resume from, if any. Nothing is ever overwritten.

    resume auto: go on from the newest complete checkpoint in DIR/NAME. never, or nothing to go on from: a
    folder of its own, DIR/NAME or DIR/NAME-2, DIR/NAME-3, … where that is taken. PATH: go on from PATH in
    DIR/NAME.
    """
    folder = resolve(recipe.run.dir) / recipe.run.name
    if recipe.resume == "auto":
        checkpoint = newest_checkpoint(folder / "checkpoints")
        if checkpoint is not None:
            return RunFolder(folder), checkpoint
    elif recipe.resume != "never":
        checkpoint = resolve(recipe.resume)
        if not checkpoint.is_dir():
            raise RecipeError(f"resume is {recipe.resume}: use auto, never, or the folder of a checkpoint")
        return RunFolder(folder), checkpoint
    return RunFolder(_unused(folder)), None


def _unused(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.is_file() or (candidate.is_dir() and any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _step_of(line: str) -> float:
    """The step of a line of metrics; a line that a killed run left unfinished counts as beyond all steps."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def _append(path: Path, value: dict[str, Any]) -> None:
    """Add a line; JSON knows no NaN and no infinity, which become null."""
    finite = {key: None if _is_not_finite(each) else each for key, each in value.items()}
    with path.open("a") as file:
        file.write(json.dumps(finite) + "\n")


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
