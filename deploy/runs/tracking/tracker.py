"""The tracker interface, the choice of trackers by recipe, and their shared code."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from common.atomic import write_json
from common.config.recipe import Recipe
from common.errors import RecipeError


class Tracker(Protocol):
    """Receives what is written to the run folder. Methods may raise; the run then goes on without the tracker."""

    def metrics(self, line: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""

    def evaluation(self, line: dict[str, Any]) -> None:
        """A line of evaluations.jsonl."""

    def picture(self, step: int, path: Path) -> None:
        """A PNG file in samples/."""

    def rewind(self, step: int) -> None:
        """The run continues from `step`; later steps are repeated."""

    def close(self, status: str) -> None:
        """The end: succeeded, stopped or failed."""


def require_packages(recipe: Recipe) -> str:
    """The names of the recipe's trackers. Raises RecipeError if a tracker's package is not installed."""
    names = [name for name in _TRACKERS if getattr(recipe.tracking, name)]
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(
                f"tracking.{name} is set, but the package {name} is not installed: pip install '.[{name}]', or "
                f"take tracking.{name} out of the recipe"
            )
    return ", ".join(names) or "the run folder alone"


def open_trackers(recipe: Recipe, folder: Path) -> dict[str, Tracker]:
    """The recipe's trackers, by name. Raises RecipeError if one cannot be reached."""
    return {name: make(recipe, folder) for name, make in _TRACKERS.items() if getattr(recipe.tracking, name)}


def kept_identity(folder: Path, service: str, make: Callable[[], str]) -> str:
    """The run's identity at `service`: made once, and kept in tracking.json for a resumed run."""
    path = folder / "tracking.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if service not in known:
        known[service] = make()
        write_json(path, known)
    return known[service]


def scalars(line: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """`prefix`/key of every finite number in a log line except the step; nested mappings add their keys."""
    return {name: value for name, value in _numbers(line, prefix) if name != f"{prefix}/step"}


def _numbers(line: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)


def _tensorboard(recipe: Recipe, folder: Path) -> Tracker:
    from deploy.runs.tracking.tensorboard_tracker import TensorBoardTracker

    return TensorBoardTracker(folder / "tensorboard")


def _wandb(recipe: Recipe, folder: Path) -> Tracker:
    from deploy.runs.tracking.wandb_tracker import WandbTracker

    return WandbTracker(recipe, folder)


def _mlflow(recipe: Recipe, folder: Path) -> Tracker:
    from deploy.runs.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(recipe, folder)


_TRACKERS: dict[str, Callable[[Recipe, Path], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
