"""Weights on their way into an actor's policy: fetched beside its work, loaded between two tickets."""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

import torch

from common.types import WeightSnapshot
from common.weights.snapshot import load_snapshot


class IncomingWeights:
    """At most one version waits here. For a GPU, it waits in pinned memory, which is kept."""

    def __init__(self, get: Callable[[int, list[Any]], WeightSnapshot], device: torch.device):
        """`get` gives the weights of a version, from a list with the reference to them."""
        self._get, self._device = get, device
        self._lock = Lock()  # over what waits: two threads fetch
        self._waiting: WeightSnapshot | None = None
        self._pinned = torch.empty(0, dtype=torch.uint8)

    def fetch(self, version: int, snapshot: list[Any]) -> None:
        """Have the weights of `version` wait here. Raises what `get` raises."""
        with self._lock:
            self._fetch(version, snapshot)

    def load_into(self, policy: torch.nn.Module, version: int, snapshot: list[Any]) -> None:
        """Load them into `policy`, fetched before or now; the object store may then have its memory back."""
        with self._lock:
            load_snapshot(policy, self._fetch(version, snapshot))
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # before the pinned memory is used again
            self._waiting = None

    def _fetch(self, version: int, snapshot: list[Any]) -> WeightSnapshot:
        if self._waiting is None or self._waiting.version != version:
            self._waiting = None  # its memory first
            weights = self._get(version, snapshot)
            self._waiting = self._staged(weights) if self._device.type == "cuda" else weights
        return self._waiting

    def _staged(self, weights: WeightSnapshot) -> WeightSnapshot:
        """In pinned memory, from where the copy to the GPU is fast."""
        if len(self._pinned) != weights.num_bytes:
            self._pinned = torch.empty(weights.num_bytes, dtype=torch.uint8, pin_memory=True)
        self._pinned.numpy()[:] = weights.buffer
        return replace(weights, buffer=self._pinned.numpy())
