"""The port over Ray: everything that the driver and its actors ask of a cluster, and the errors that mean a loss.

Code that takes this object can be tested without a cluster: `tests/fakes.py` has a stand-in that runs actors in
the test's process, on a clock that the test moves.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import state
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from common.errors import ClusterError, first_line


class ProcessLostError(Exception):
    """The called actor is dead: it was killed, ran out of memory, or went down with its node."""


class ValueLostError(Exception):
    """No node holds the value of the reference any more."""


class NoAnswerError(Exception):
    """The value did not arrive in time."""


class NameTakenError(ClusterError):
    """An actor of this name is already alive in the cluster."""


class RayCalls:
    """Ray itself. References and actors are Ray's own; only this object looks into them."""

    def start(
        self,
        actor_class: type,
        *arguments: Any,
        concurrency_groups: Mapping[str, int] | None = None,
        room: Any = None,
        **options: Any,
    ) -> Any:
        """Request an actor without waiting for it. `options` are Ray's: num_cpus, num_gpus, label_selector, name.

        `room` is what `room_together` gave, and has seen to the labels. Raises NameTakenError.
        """
        if room is not None:
            options.pop("label_selector", None)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(room)
        settings: dict[str, Any] = {"concurrency_groups": dict(concurrency_groups)} if concurrency_groups else {}
        remote: Any = ray.remote(**settings)(actor_class) if settings else ray.remote(actor_class)
        try:
            return remote.options(**options).remote(*arguments)
        except ValueError as error:
            if "name" not in options:
                raise
            raise NameTakenError(f"an actor named {options['name']} is alive: {first_line(error)}") from None

    def room_together(self, needs: Mapping[str, float], count: int, labels: Mapping[str, str]) -> Any:
        """Request room for `count` actors that each need so much, on as few nodes as possible; does not wait."""
        bundles = [{name: amount for name, amount in needs.items() if amount} for _ in range(count)]
        return placement_group(bundles, strategy="PACK", bundle_label_selector=[dict(labels)] * count)

    def leave_room(self, room: Any) -> None:
        """Give it back."""
        remove_placement_group(room)

    def ready(self, references: Sequence[Any], timeout: float = 0.0, count: int = 1) -> list[Any]:
        """References whose value or error has arrived, as soon as `count` have or `timeout` seconds have passed.

        Waiting fetches: an available value is copied to this node and outlives the node that made it.
        """
        if not references:
            return []
        # Ray returns at most the number it waits for: ask again for all that have arrived by then.
        ray.wait(list(references), num_returns=min(count, len(references)), timeout=timeout)
        done, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
        return done

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        """The value of a reference, or of each reference in a list.

        Raises ProcessLostError, ValueLostError, NoAnswerError, or the actor's own exception.
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
        """A reference to `value`, owned by this process."""
        return ray.put(value)

    def kill(self, actor: Any) -> None:
        ray.kill(actor)

    def free_resources(self) -> Mapping[str, float]:
        """The cluster's unused CPU, GPU and other resources."""
        return ray.available_resources()

    def most_resources(self) -> Mapping[str, float]:
        """What the cluster has, or could have with all the nodes that its autoscaler may start."""
        limits = state.get_max_resources_from_cluster_config() or {}
        total = ray.cluster_resources()
        return total | {name: max(total.get(name, 0), most) for name, most in limits.items()}

    def node_address(self) -> str:
        """Address of this process's node."""
        return ray.util.get_node_ip_address()

    def clock(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


def _death(error: Exception) -> str:
    """Why an actor is dead; of one that could not be made, what its constructor raised."""
    if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        return str(error).strip().splitlines()[-1]
    return first_line(error)
