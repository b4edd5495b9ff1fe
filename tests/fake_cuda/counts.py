"""What a GPU would have been asked for, by the line of the project that asked."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_OWN = f"{Path(__file__).parent}/"


def place() -> str:
    """`learner/loss.py:31`: the innermost line of the project at work, tests included."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(f"{_ROOT}/") and not name.startswith(_OWN) and "site-packages" not in name:
            return f"{name[len(str(_ROOT)) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


@dataclass
class Counts:
    """Each counter is by `place()`; `.total()` adds it up."""

    syncs: Counter[str] = field(default_factory=Counter)  # the CPU waits for numbers that the GPU has not made yet
    synchronizes: Counter[str] = field(default_factory=Counter)  # it waits because it is told to, as a clock does
    to_device_bytes: Counter[str] = field(default_factory=Counter)
    off_device_bytes: Counter[str] = field(default_factory=Counter)
    cast_bytes: Counter[str] = field(default_factory=Counter)  # written in another dtype
    kernels: Counter[str] = field(default_factory=Counter)  # launched; views and empty tensors are none

    def reset(self) -> None:
        for counter in vars(self).values():
            counter.clear()


def total_in(counter: Counter[str], path: str) -> int:
    """What a counter has in files under `path`, a prefix."""
    return sum(count for where, count in counter.items() if where.startswith(path))
