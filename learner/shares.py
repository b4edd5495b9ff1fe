"""The division of a step's groups among learner ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import DataError


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one table of groups."""

    groups: Any  # reference to the table
    start: int
    count: int


def share(tables: Sequence[tuple[Any, int]], num_ranks: int) -> list[list[Piece]]:
    """Each rank's pieces: consecutive groups in the order of `tables`, as equal in number as possible.

    `tables` holds each table's reference and its number of groups. Raises DataError if a rank would get none,
    which happens only if nearly every image of the step was broken or gave a non-finite group.
    """
    total = sum(count for _, count in tables)
    if total < num_ranks:
        raise DataError(
            f"a step has {total} groups for {num_ranks} learner ranks: events.jsonl names the images that were "
            "left out, and why; mend the data set, or lower learner.num_ranks"
        )
    bounds = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(total), num_ranks))])
    shares: list[list[Piece]] = []
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        pieces, offset = [], 0
        for reference, count in tables:
            start, stop = max(low - offset, 0), min(high - offset, count)
            if start < stop:
                pieces.append(Piece(reference, start, stop - start))
            offset += count
        shares.append(pieces)
    return shares
