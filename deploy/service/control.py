"""`scale`, `stop` and `status`: talk to a running driver through the Ray cluster that it is on.

Each answers within seconds: the run's lock says whether it is at work, and a probe whether its cluster answers.
Import it after `set_ray_environment`.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from common.errors import ClusterError, RecipeError, first_line
from common.paths import find_run, places_text
from common.text import counted
from deploy.cluster.probe import require_answer
from deploy.runs.connection import read_connection
from deploy.runs.run_lock import LOCK, holder_text, lock_state
from deploy.runs.standing import AT_WORK, standing
from deploy.service.control_actor import NAMESPACE, control_name

ANSWER_SECONDS = 5.0


class NotRunningError(ClusterError):
    """The run is not at work, as far as can be seen."""


def scale(run: str, word: str) -> str:
    """Ask for another number of reward actors or judge actors; `word` is "actors=N" or "rewards=N"."""
    key, _, value = word.partition("=")
    if key not in ("actors", "rewards") or not value.isdecimal():
        raise RecipeError(f"scale takes actors=N or rewards=N with a number N, not {word!r}")
    count = int(value)
    with _connected(run) as call:
        status = call("status")
        request, noun, most = _actors_asked(status, count) if key == "actors" else _judges_asked(status, count)
        if most is not None and count > most:
            raise ClusterError(
                f"{value} {noun}s are far beyond the cluster of {run}: ask for at most {most}, or add nodes first"
            )
        call("ask", {request: count})
    return f"asked for {counted(count, noun)}"


def _actors_asked(status: dict[str, Any], count: int) -> tuple[str, str, int | None]:
    """The request, who is asked for, and how many there can be."""
    if count < 1 and not any(actor.get("is_guest") for actor in status["actors"].values()):
        raise RecipeError(
            f"actors={count} would leave nobody to roll out: ask for at least 1 (placement is split)"
        )
    return "scale", "reward actor", status.get("actors_most")


def _judges_asked(status: dict[str, Any], count: int) -> tuple[str, str, int | None]:
    judges = status.get("judges")
    if not judges:
        raise RecipeError(
            f"rewards={count}: this run has no judge actors, its reward actors measure the whole reward; begin a "
            "run with reward.actors.count of 1 or more"
        )
    if count < 1:
        raise RecipeError(f"rewards={count} would leave nobody to judge pictures: ask for at least 1")
    return "scale_judges", "judge actor", judges["most"]


def stop(run: str) -> str:
    """Ask the driver to finish the running step, leave a checkpoint and end."""
    with _connected(run) as call:
        call("ask", {"stop": True})
    return "asked to stop: it finishes the running step and leaves a checkpoint"


def status(run: str) -> dict[str, Any]:
    """What the driver says of itself; of a run that is not at work, how it stands."""
    try:
        with _connected(run) as call:
            return _live(call)
    except NotRunningError:
        if find_run(run) is None:
            raise
        return standing(run)


def statuses(run: str, every_seconds: float) -> Iterator[dict[str, Any]]:
    """What the driver says of itself, again and again over one connection, and at the end how the run stands."""
    try:
        with _connected(run) as call:
            while True:
                yield _live(call)
                time.sleep(every_seconds)
    except ClusterError:
        if find_run(run) is None:
            raise
        yield standing(run)


def _live(call: Callable[..., Any]) -> dict[str, Any]:
    return {"state": AT_WORK, **call("status")}


@contextmanager
def _connected(run: str) -> Iterator[Callable[..., Any]]:
    """What calls the control actor of `run`, a run folder or, with RAY_ADDRESS set, a run's name.

    NotRunningError where there is none, ClusterError where its cluster does not answer.
    """
    folder = _run_folder(run)
    address = _address(run, folder)
    try:
        with _ray_errors(run):
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        try:
            actor = ray.get_actor(control_name(folder.name if folder else run))
        except ValueError:
            raise NotRunningError(f"{run} is not running: the cluster at {address} knows no such run") from None

        def call(method: str, *arguments: Any) -> Any:
            with _ray_errors(run):
                return ray.get(getattr(actor, method).remote(*arguments), timeout=ANSWER_SECONDS)

        yield call
    finally:
        ray.shutdown()


@contextmanager
def _ray_errors(run: str) -> Iterator[None]:
    """Ray's errors as ours."""
    try:
        yield
    except ray.exceptions.RayActorError:
        raise NotRunningError(f"{run} is not running: it has ended just now") from None
    except ray.exceptions.GetTimeoutError:
        raise ClusterError(
            f"the driver of {run} has not answered for {ANSWER_SECONDS:g} s: its cluster is there, so try again"
        ) from None
    except (ConnectionError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(f"the cluster of {run} cannot be joined: {first_line(error)}") from None


def _run_folder(run: str) -> Path | None:
    folder = find_run(run) or find_run(run, LOCK)  # which a run has that is starting
    if folder is None and not os.environ.get("RAY_ADDRESS"):
        raise RecipeError(
            f"there is no run folder {places_text(run)}: name one (`status` alone lists them), or set "
            "RAY_ADDRESS and name the run"
        )
    return folder


def _address(run: str, folder: Path | None) -> str:
    """Where the run's Ray is, which answers; sets the environment that a local Ray's token is read from."""
    if os.environ.get("RAY_ADDRESS"):
        address = os.environ["RAY_ADDRESS"]
        require_answer(address, "RAY_ADDRESS")
        return address
    assert folder is not None
    state, known = lock_state(folder), read_connection(folder)
    if state == "free" or (state == "unknown" and known is None):
        raise NotRunningError(f"{run} is not running: {_how_it_ended(run)}")
    if known is None:
        raise NotRunningError(
            f"{run} is at work ({holder_text(folder)}) without a Ray that could be asked: it is starting, or a "
            "run of `local`"
        )
    os.environ.update(known["environment"])
    try:
        require_answer(known["address"])
    except ClusterError as error:
        if state == "unknown":
            raise NotRunningError(f"{run} is not running ({error})") from None
        raise ClusterError(f"{run} is at work ({holder_text(folder)}), but not its Ray: {error}") from None
    return known["address"]


def _how_it_ended(run: str) -> str:
    known = standing(run)
    return f"{known['state']} after step {known['step']}"
