"""A run's folder: what it was asked, what it measured, what happened, what came out.

`recipe.json`, `metrics.jsonl` (a line a step), `evaluations.jsonl` (a line an evaluation), `events.jsonl` (a line
an event), `run.log`, `checkpoints/`, `samples/` and, at the end, `summary.json`. The process that holds `run.lock`
is the only writer.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.atomic import append_line, replacing, write_json
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.facts import Ended, Fact, Resumed, Scored, StepLearned
from common.paths import resolve
from deploy.runs.group_records import FOLDER, forget_groups
from deploy.runs.run_lock import LOCK, FolderHeldError, lock_run
from learner.checkpoint import newest_checkpoint
from learner.checkpoint_names import step_of
from learner.remote_checkpoints import RemoteCheckpoints

METRICS, EVENTS, SUMMARY = "metrics.jsonl", "events.jsonl", "summary.json"


class RunFolder:
    """Also a sink: what happens in the run becomes lines in its files."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.groups = path / FOLDER
        path.mkdir(parents=True, exist_ok=True)

    def record(self, fact: Fact) -> None:
        """A line in events.jsonl with the time (UTC), and what the fact means for the other files."""
        _append(self.path / EVENTS, {"time": datetime.now(UTC).isoformat(), "event": fact.event, **fact.told()})
        if isinstance(fact, StepLearned):
            _append(self.path / METRICS, fact.metrics())
        elif isinstance(fact, Scored):
            _append(self.path / "evaluations.jsonl", {"step": fact.step, **fact.scores})
        elif isinstance(fact, Resumed):
            self._go_back_to(fact.step)
        elif isinstance(fact, Ended):
            write_json(self.path / SUMMARY, _finite(fact.summary))

    @property
    def has_history(self) -> bool:
        """Whether the service was at work here before."""
        events = self.path / EVENTS
        return events.is_file() and '"event": "started"' in events.read_text(errors="replace")

    def training_seconds(self) -> float:
        """What the steps took until now, from one publication of weights to the next."""
        lines = (self.path / METRICS).read_text().splitlines()
        return sum(json.loads(line)["step_seconds"] for line in lines)

    def write_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "recipe.json", recipe.model_dump(mode="json"))

    def _go_back_to(self, step: int) -> None:
        """Forget how the run ended, and the metrics and scores of steps after `step`: it does them again."""
        (self.path / SUMMARY).unlink(missing_ok=True)
        forget_groups(self.groups, step)
        for path in (self.path / METRICS, self.path / "evaluations.jsonl"):
            if path.exists():
                lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
                with replacing(path) as temporary:
                    temporary.write_text("".join(line + "\n" for line in lines))


@contextmanager
def open_run_folder(recipe: Recipe) -> Iterator[tuple[RunFolder, Path | None]]:
    """The run's folder, held against every other process, and the checkpoint to resume from, if any.

    resume auto: go on from the newest complete checkpoint, in DIR/NAME or at checkpoint.url; a run that ended
    before its first begins again in its folder. never, or nothing to go on with: a folder of its own, DIR/NAME
    or DIR/NAME-2, DIR/NAME-3, … where that is taken. PATH or URL: go on from that in DIR/NAME.

    Nothing is ever overwritten. Raises RecipeError where the run is at work, or the folder is none of a run.
    """
    folder, resume = resolve(recipe.run.dir) / recipe.run.name, recipe.resume
    with ExitStack() as held:
        if resume == "auto" and (_is_run(folder) or not _is_taken(folder)):
            held.enter_context(lock_run(folder))
            checkpoint = _newest(folder / "checkpoints", remote_checkpoints(recipe, folder.name))
            if checkpoint is not None or _is_unfinished(folder):
                yield RunFolder(folder), checkpoint
                return
            held.close()
        elif resume not in ("auto", "never"):
            if "://" not in resume and not resolve(resume).is_dir():
                raise RecipeError(f"resume is {resume}: use auto, never, or the folder of a checkpoint")
            if _is_taken(folder) and not _is_run(folder):
                raise RecipeError(f"{folder} is not empty, and no run folder: choose another run.name or run.dir")
            held.enter_context(lock_run(folder))
            yield RunFolder(folder), _given(resume, folder / "checkpoints")
            return
        folder = held.enter_context(_unused(folder))
        remote = remote_checkpoints(recipe, folder.name)
        taken = remote.newest() if remote else None
        if taken is not None:
            raise RecipeError(
                f"checkpoint.url holds {taken} of another run {folder.name}: set another run.name, or resume=auto "
                "to go on from it"
            )
        yield RunFolder(folder), None


def remote_checkpoints(recipe: Recipe, name: str) -> RemoteCheckpoints | None:
    """Where copies of the checkpoints of the run in DIR/`name` are, if the recipe names a place."""
    url = recipe.checkpoint.url
    return RemoteCheckpoints(f"{url.rstrip('/')}/{name}") if url else None


def _is_taken(folder: Path) -> bool:
    """Whether there is anything."""
    try:
        return os.path.isfile(folder) or any(name != LOCK for name in os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # not ours to look into
        return True


def _is_run(folder: Path) -> bool:
    """Whether a run has written there."""
    return any(os.path.exists(folder / name) for name in ("recipe.json", EVENTS, "checkpoints"))


def _is_unfinished(folder: Path) -> bool:
    """Whether the service began a run here and did not succeed."""
    summary = folder / SUMMARY
    succeeded = summary.is_file() and json.loads(summary.read_text())["status"] == "succeeded"
    return RunFolder(folder).has_history and not succeeded


def _given(resume: str, checkpoints: Path) -> Path:
    """The checkpoint of that path, or the copy in `checkpoints` of the one at that URL."""
    if "://" not in resume:
        return resolve(resume)
    url, _, name = resume.rstrip("/").rpartition("/")
    return RemoteCheckpoints(url).download(name, checkpoints)


def _newest(folder: Path, remote: RemoteCheckpoints | None) -> Path | None:
    local = newest_checkpoint(folder)
    name = remote.newest() if remote else None
    if remote is None or name is None or (local is not None and step_of(local.name) >= step_of(name)):
        return local
    return remote.download(name, folder)


@contextmanager
def _unused(folder: Path) -> Iterator[Path]:
    """The first of NAME, NAME-2, NAME-3, … where there is nothing and nobody, held."""
    candidate, number = folder, 1
    while True:
        with ExitStack() as held:
            if _enters(held, candidate) and not _is_taken(candidate):  # nobody was quicker, and is done
                yield candidate
                return
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")


def _enters(held: ExitStack, folder: Path) -> bool:
    """Whether an unused folder could be taken."""
    if _is_taken(folder):
        return False
    try:
        held.enter_context(lock_run(folder))
    except FolderHeldError:
        return False
    return True


def _step_of(line: str) -> float:
    """The step of a line of metrics; a line that a killed run left unfinished counts as beyond all steps."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def _append(path: Path, value: dict[str, Any]) -> None:
    """Add a line; JSON knows no NaN and no infinity, which become null."""
    append_line(path, json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null in place of each number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
