"""`scale`, `stop` and `status`: talk to a running driver through the Ray cluster that it is on.

Import it after `set_ray_environment`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from common.errors import ClusterError, RecipeError, first_line
from common.paths import find_run
from deploy.runs.run_folder import CONNECTION
from deploy.service.control_actor import NAMESPACE, control_name

ANSWER_SECONDS = 20.0


def scale(run: str, word: str) -> str:
    """Ask for another number of reward actors; `word` is "actors=N"."""
    key, _, value = word.partition("=")
    if key != "actors" or not value.isdecimal() or int(value) < 1:
        raise RecipeError(f"scale takes actors=N with N of at least 1, not {word!r}")
    _call(run, "ask", {"scale": int(value)})
    return f"asked for {value} reward actors"


def stop(run: str) -> str:
    """Ask the driver to finish the running step, leave a checkpoint and end."""
    _call(run, "ask", {"stop": True})
    return "asked to stop: it finishes the running step and leaves a checkpoint"


def status(run: str) -> dict[str, Any]:
    """What the driver says of itself."""
    return _call(run, "status")


def statuses(run: str, every_seconds: float) -> Iterator[dict[str, Any]]:
    """What the driver says of itself, again and again over one connection; ends when the run does."""
    with _connected(run) as call:
        yield call("status")
        while True:
            time.sleep(every_seconds)
            try:
                answer = call("status")
            except ClusterError:
                return
            yield answer


def _call(run: str, method: str, *arguments: Any) -> Any:
    with _connected(run) as call:
        return call(method, *arguments)


@contextmanager
def _connected(run: str) -> Iterator[Callable[..., Any]]:
    """What calls the control actor of `run`, a run folder or, with RAY_ADDRESS set, a run's name.

    ClusterError where the run does not answer.
    """
    folder = _run_folder(run)
    address = _address(run, folder)
    try:
        with _not_running(run):
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
            actor = ray.get_actor(control_name(folder.name if folder else run))

        def call(method: str, *arguments: Any) -> Any:
            with _not_running(run):
                return ray.get(getattr(actor, method).remote(*arguments), timeout=ANSWER_SECONDS)

        yield call
    finally:
        ray.shutdown()


@contextmanager
def _not_running(run: str) -> Iterator[None]:
    """Ray's errors as ours."""
    try:
        yield
    except (ConnectionError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(f"{run} does not answer, so it is not running ({first_line(error)})") from None


def _run_folder(run: str) -> Path | None:
    folder = find_run(run)
    if folder is None and not os.environ.get("RAY_ADDRESS"):
        raise RecipeError(
            f"there is no run folder {run} or runs/{run}: name one, or set RAY_ADDRESS and name the run"
        )
    return folder


def _address(run: str, folder: Path | None) -> str:
    """Where the run's Ray is; sets the environment that a local Ray's token is read from."""
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    path = folder / CONNECTION if folder else None
    if path is None or not path.is_file():
        raise ClusterError(f"{run} is not running: its folder holds no {CONNECTION}")
    known = json.loads(path.read_text())
    os.environ.update(known["environment"])
    return known["address"]
