"""Runs a function on many works: in this process, or as Ray tasks, a bounded number at a time."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from common.errors import ClusterError, UserError

Work = TypeVar("Work")
Result = TypeVar("Result")

WAIT_SECONDS = 60.0
OBJECT_STORE_BYTES = 100 << 20  # works and results are small; shards go straight to disk

log = logging.getLogger("vapi.prepare")


class Workers:
    """`with Workers(4) as workers: …`. Ray is started at the first `run`, and left at the end."""

    def __init__(self, count: int, gpus_per_worker: float = 0.0):
        self._count = count  # 0: this process, without Ray
        self._gpus = gpus_per_worker
        self._restore_signals: Callable[[], None] | None = None  # set once Ray is started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._restore_signals:
            from deploy.cluster.ray_session import RaySession

            RaySession().close()
            self._restore_signals()

    def run(self, function: Callable[[Work], Result], works: Sequence[Work]) -> Iterator[tuple[int, Result]]:
        """Index and result of each work, in the order in which they are done.

        The first UserError of a work is raised; works that have not begun then never do.
        """
        if not self._count:
            for index, work in enumerate(works):
                yield index, function(work)
        elif works:
            yield from self._run_tasks(function, works)

    def _run_tasks(self, function: Callable[[Work], Result], works: Sequence[Work]):
        self._start()
        import ray

        task: Any = ray.remote(num_cpus=1, num_gpus=self._gpus)(_returning_user_errors)
        waiting = list(enumerate(works))[::-1]
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < self._count:
                index, work = waiting.pop()
                running[task.remote(function, work)] = index
            done, _ = ray.wait(list(running), timeout=WAIT_SECONDS)
            if not done:
                log.info("waiting for %d tasks: nothing came back for %.0f s", len(running), WAIT_SECONDS)
            for reference in done:
                yield running.pop(reference), _result(reference)

    def _start(self) -> None:
        if self._restore_signals:
            return
        from deploy.cluster.ray_environment import set_ray_environment

        set_ray_environment()
        import ray

        from deploy.cluster.ray_session import connect, on_stop_signal

        log.info("%s", connect(max(os.cpu_count() or 1, self._count), OBJECT_STORE_BYTES))
        self._restore_signals = on_stop_signal(_interrupt)
        num_gpus = ray.cluster_resources().get("GPU", 0)
        if num_gpus < self._gpus:
            raise ClusterError(f"--gpus-per-worker is {self._gpus:g} and Ray has {num_gpus:g} GPUs: lower it")


def _interrupt(_signal: int) -> None:
    raise KeyboardInterrupt


def _returning_user_errors(function: Callable[[Work], Result], work: Work) -> Result | UserError | OSError:
    """A user's mistake is a result, and so is a full disk: Ray would wrap it in the worker's traceback."""
    try:
        return function(work)
    except (UserError, OSError) as error:
        return error


def _result(reference: Any) -> Any:
    import ray

    try:
        result = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise ClusterError(f"a worker died repeatedly ({error}): give it more memory or lower --workers") from None
    if isinstance(result, UserError | OSError):
        raise result
    return result
