"""The mailbox of a running driver: other processes leave requests there and read its status."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from common.errors import ClusterError
from common.ray_calls_group import NameTakenError, ProcessLostError, RayCalls

NAMESPACE = "vapi"
EVERY_SECONDS = 1.0


def control_name(run_name: str) -> str:
    return f"control:{run_name}"


class ControlActor:
    def __init__(self) -> None:
        self._requests: list[dict[str, Any]] = []
        self._status: dict[str, Any] = {}

    def ask(self, request: dict[str, Any]) -> None:
        """Leave a request: {"scale": N}, {"scale_judges": N} or {"stop": true}."""
        self._requests.append(request)

    def status(self) -> dict[str, Any]:
        """What the driver last said of itself; empty before it has."""
        return self._status

    def exchange(self, status: dict[str, Any]) -> list[dict[str, Any]]:
        """The driver's: keep `status`, hand out the requests left since."""
        self._status = status
        requests, self._requests = self._requests, []
        return requests


class ControlLink:
    """The driver's end. Raises ClusterError where a run of this name is at work on the cluster already."""

    def __init__(self, run_name: str, ray: RayCalls):
        self._ray = ray
        try:
            self._actor = ray.start(
                ControlActor, name=control_name(run_name), namespace=NAMESPACE, num_cpus=0, max_restarts=-1
            )
        except NameTakenError:
            raise ClusterError(
                f"a run named {run_name} is at work on this cluster: choose another run.name, or stop that run "
                f"(python -m deploy stop {run_name})"
            ) from None
        self._pending: Any = None  # reference to requests
        self._kept: list[dict[str, Any]] = []  # requests that came outside the loop
        self._last = 0.0

    def close(self) -> None:
        self._ray.kill(self._actor)

    def exchange(self, status: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """Requests that have come; sends `status()` about once a second. Never waits."""
        kept, self._kept = self._kept, []
        return [*kept, *self._look(status)]

    def stop_is_asked(self, status: Callable[[], dict[str, Any]]) -> bool:
        """Whether a stop is among the requests, which are kept for `exchange`."""
        self._kept += self._look(status)
        return any("stop" in request for request in self._kept)

    def _look(self, status: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []
        if self._pending is not None and self._ray.ready([self._pending]):
            pending, self._pending = self._pending, None
            with suppress(ProcessLostError):  # Ray restarts it; only unread requests are lost
                requests = self._ray.get(pending)
        if self._pending is None and self._ray.clock() - self._last > EVERY_SECONDS:
            self._last = self._ray.clock()
            self._pending = self._actor.exchange.remote(status())
        return requests
