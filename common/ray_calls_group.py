"""The port over Ray: all that the driver's side and its actors ask of a cluster, with the errors that mean a loss.

Whoever holds this object can be tested without a cluster: `tests/fakes.py` has a stand-in that runs actors in the
test's own process, under a clock that the test moves.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from common.errors import ClusterError, first_line


class ProcessLostError(Exception):
    """The actor that was asked is dead: it was killed, ran out of memory, or went down with its node."""


class ValueLostError(Exception):
    """No node holds the value of the reference any more."""


class NoAnswerError(Exception):
    """The value was not there in time."""


class NameTakenError(ClusterError):
    """An actor of this name is alive in the cluster."""


class RayCalls:
    """Ray itself. References and actors are Ray's own; nobody but this object looks into them."""

    def start(
        self,
        actor_class: type,
        *arguments: Any,
        concurrency_groups: Mapping[str, int] | None = None,
        **options: Any,
    ) -> Any:
        """An actor, asked for and not waited for. `options` are Ray's: num_cpus, num_gpus, label_selector, name.

        Raises NameTakenError.
        """
        settings: dict[str, Any] = {"concurrency_groups": dict(concurrency_groups)} if concurrency_groups else {}
        remote: Any = ray.remote(**settings)(actor_class) if settings else ray.remote(actor_class)
        try:
            return remote.options(**options).remote(*arguments)
        except ValueError as error:
            if "name" not in options:
                raise
            raise NameTakenError(f"an actor named {options['name']} is alive: {first_line(error)}") from None

    def ready(self, references: Sequence[Any], timeout: float = 0.0, count: int = 1) -> list[Any]:
        """Those whose value or error is there, once `count` are or `timeout` seconds have passed.

        Waiting fetches: a value that is found comes to this node, and outlives the node that made it.
        """
        if not references:
            return []
        # Ray returns no more than it was asked to wait for: ask again for all that are there by then.
        ray.wait(list(references), num_returns=min(count, len(references)), timeout=timeout)
        done, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
        return done

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        """The value of a reference, or of each of a list.

        Raises ProcessLostError, ValueLostError, NoAnswerError, or what the actor raised.
        """
        try:
            return ray.get(reference, timeout=timeout)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            raise ProcessLostError(_death(error)) from error
        except ray.exceptions.ObjectLostError as error:
            raise ValueLostError(first_line(error)) from error
        except ray.exceptions.GetTimeoutError as error:
            raise NoAnswerError(f"it has not answered for {timeout:g} s") from error

    def put(self, value: Any) -> Any:
        """A reference to `value`, which this process owns."""
        return ray.put(value)

    def kill(self, actor: Any) -> None:
        ray.kill(actor)

    def free_resources(self) -> Mapping[str, float]:
        """What of the cluster's CPU, GPU and the rest nobody has."""
        return ray.available_resources()

    def node_address(self) -> str:
        """Of the node that this process runs on."""
        return ray.util.get_node_ip_address()

    def clock(self) -> float:
        """Seconds, from an arbitrary moment on."""
        return time.monotonic()


def _death(error: Exception) -> str:
    """Why an actor is dead; of one that could not be made, what its constructor raised."""
    if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        return str(error).strip().splitlines()[-1]
    return first_line(error)
