"""The learner's ranks as one: starts them, forms their process group, and steps them together."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np
import ray

from common.config.recipe import Recipe
from common.errors import ClusterError
from common.types import StepReport
from learner.learner_actor import LearnerActor
from learner.shares import share
from learner.train_step import StepSums

POLL_SECONDS = 0.5

_RemoteLearner: Any = ray.remote(LearnerActor)


class LearnerGroup:
    def __init__(self, recipe: Recipe, checkpoint: str | None):
        """Ask for the ranks; they load in parallel. `checkpoint` is a folder to take the weights from."""
        learner = recipe.learner
        self._recipe = recipe
        self._ranks = [
            _RemoteLearner.options(num_cpus=learner.num_cpus, num_gpus=learner.num_gpus).remote(recipe, checkpoint)
            for _ in range(learner.num_ranks)
        ]
        self._running: list[ray.ObjectRef] = []
        self._step = 0

    def wait_ready(self, timeout_seconds: float, on_wait: Callable[[], None]) -> None:
        """Wait for every rank, then form the process group. Raises ClusterError, or a rank's own error."""
        deadline = monotonic() + timeout_seconds
        nodes = [rank.node.remote() for rank in self._ranks]
        done, missing = ray.wait(nodes, num_returns=len(nodes), timeout=0)
        while missing and monotonic() < deadline:
            on_wait()
            done, missing = ray.wait(nodes, num_returns=len(nodes), timeout=POLL_SECONDS)
        if missing:
            learner = self._recipe.learner
            raise ClusterError(
                f"{len(missing)} of {len(nodes)} learner ranks were not ready within {timeout_seconds:.0f} s: "
                f"each needs {learner.num_cpus:g} CPU and {learner.num_gpus:g} GPU; lower learner.num_ranks or "
                "add nodes"
            )
        ray.get(done)
        num_ranks = len(self._ranks)
        host, port = ray.get(self._ranks[0].open_store.remote(num_ranks))
        joins = [rank.join.remote(index, num_ranks, host, port) for index, rank in enumerate(self._ranks)]
        ray.get(joins, timeout=max(1.0, deadline - monotonic()))

    def resume(self, step: int, optimizer: Mapping[str, np.ndarray]) -> None:
        """Take up a checkpoint's optimizer state on every rank."""
        reference = ray.put(dict(optimizer))
        ray.get([rank.resume.remote(step, reference) for rank in self._ranks])
        self._step = step

    def start_step(self, tables: Sequence[tuple[Any, int]]) -> None:
        """Begin an optimizer step on `tables`, (reference, number of groups) each. Raises DataError."""
        assert not self._running, "the last step is not finished"
        num_groups = sum(count for _, count in tables)
        shares = share(tables, len(self._ranks))
        self._running = [
            rank.train.remote(pieces, num_groups) for rank, pieces in zip(self._ranks, shares, strict=True)
        ]

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    def waiting_for(self) -> list[ray.ObjectRef]:
        """References that become ready when the running step ends."""
        return self._running[:1]

    def finish_step(self) -> StepReport:
        """Wait for the running step on every rank, and report it."""
        results = ray.get(self._running)
        self._running = []
        self._step += 1
        sums = sum((rank_sums for rank_sums, _, _ in results), StepSums())
        _, grad_norm, stage_seconds = results[0]
        return sums.report(self._step, grad_norm, stage_seconds)

    def snapshot(self, version: int) -> ray.ObjectRef:
        """Reference to the weights as policy `version`."""
        return self._ranks[0].snapshot.remote(version)

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return ray.get(self._ranks[0].optimizer_arrays.remote())

    def shutdown(self) -> None:
        leaving = [rank.leave.remote() for rank in self._ranks]
        ray.wait(leaving, num_returns=len(leaving), timeout=5)
        for rank in self._ranks:
            ray.kill(rank)
