"""A line of a run's logs as named numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any


def scalars(line: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """`prefix`/key of every finite number but the step; what is in a mapping has its key too."""
    return {name: value for name, value in _numbers(line, prefix) if name != f"{prefix}/step"}


def _numbers(line: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)
