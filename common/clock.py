"""Seconds spent by stage."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch


class StageClock:
    """Adds up the seconds of named stages: `with clock("decode"): …`.

    If `device` is a GPU, a stage waits for its kernels, so that their time counts in their own stage.
    """

    def __init__(self, device: torch.device | None = None):
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = device is not None and device.type == "cuda"

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
            if self._synchronize:
                torch.cuda.synchronize()
        finally:
            self.seconds[stage] += perf_counter() - start
