"""Joins the job's cluster, or starts a local Ray for this run."""

import logging
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import ray

from actors.pool_size import require_possible
from common.config.recipe import Recipe
from common.errors import ClusterError, first_line
from deploy.cluster.probe import require_cluster


class RaySession:
    """The cluster of a training run, from start to end."""

    def require_cluster(self) -> None:
        """ClusterError within seconds where there is none to join."""
        require_cluster()

    def open(self, recipe: Recipe) -> str:
        """Connect with what the recipe needs; returns a message for the user. Raises ClusterError."""
        if not os.environ.get("RAY_ADDRESS"):
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            limits = {"CPU": math.inf, "GPU": math.inf, "memory": memory}  # its CPUs are what the recipe asks for
            require_possible(recipe.actors.count, recipe.actors, limits)
            require_possible(recipe.reward.actors.count, recipe.reward.actors, limits, "judge actor")
        return connect(_cpus_needed(recipe), recipe.ray.object_store_bytes)

    def connection(self) -> dict[str, Any]:
        """What another process on this machine needs to join: the address, and a local Ray's token."""
        names = () if os.environ.get("RAY_ADDRESS") else ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        return {"address": ray.get_runtime_context().gcs_address, "environment": environment}

    def close(self) -> None:
        """Leave the cluster, or end the local Ray with all its processes."""
        ray.shutdown()


def connect(num_cpus: int, object_store_bytes: int) -> str:
    """Join the cluster at RAY_ADDRESS (set by `ray job submit`), or start a local Ray of this size.

    Returns a message for the user. Ray reads its environment when imported: see `ray_environment.py`. Raises
    ClusterError within seconds where no cluster answers, or it refuses this process.
    """
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.WARNING}
    if address:
        require_cluster()
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"the Ray cluster at RAY_ADDRESS={address} cannot be joined ({first_line(error)}): run this on "
                "one of its nodes, and look at `ray status`"
            ) from None
        return f"Ray cluster at {address}: {_resources()}"
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=object_store_bytes,
        _node_ip_address="127.0.0.1",
        **options,
    )
    return f"local Ray: {_resources()}"


def on_stop_signal(stop: Callable[[int], None]) -> Callable[[], None]:
    """Call `stop` with the signal's number on SIGINT and SIGTERM; returns a function that restores the handlers.

    Call this after ray.init, which replaces the handlers. A second signal goes to the former handler, which exits.
    """
    former: dict[int, Any] = {}

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, former[number])
        stop(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        former[number] = signal.signal(number, handle)

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    return restore


def _cpus_needed(recipe: Recipe) -> int:
    """CPUs to declare to a local Ray: enough for the recipe's processes, even if the machine has fewer.

    They then share its cores, and none waits forever for a missing core.
    """
    needed = recipe.learner.num_ranks * recipe.learner.num_cpus
    for pool in (recipe.actors, recipe.reward.actors):
        needed += max(pool.count, pool.autoscale.max if pool.autoscale else 0) * pool.num_cpus
    return max(os.cpu_count() or 1, int(needed + 1))


def _resources() -> str:
    total = ray.cluster_resources()
    return f"{total.get('CPU', 0):g} CPU, {total.get('GPU', 0):g} GPU, {len(ray.nodes())} node(s)"
