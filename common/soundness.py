"""Which groups can be learned from: those whose every number is finite.

Actors leave the others out and name them; the learner looks again, because one such number in a step's loss
spoils the whole gradient.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.schema import GroupBatch, reward_columns


def unsound_groups(groups: GroupBatch) -> dict[int, str]:
    """What is wrong with each row that cannot be learned from, by its number."""
    reasons = {int(row): "non-finite log-probability" for row in _not_finite(groups.behaviour_logprobs_BGT)}
    for column in reward_columns(groups).values():
        reasons |= {int(row): "non-finite reward" for row in _not_finite(column)}
    return dict(sorted(reasons.items()))


def take_rows(groups: GroupBatch, rows: Sequence[int]) -> GroupBatch:
    """The groups of `rows` alone, in that order."""
    arrays: dict[str, Any] = {
        name: column[rows] for name, column in vars(groups).items() if isinstance(column, np.ndarray)
    }
    return replace(
        groups,
        image_id_B=tuple(groups.image_id_B[row] for row in rows),
        condition={name: column[rows] for name, column in groups.condition.items()},
        **arrays,
    )


def _not_finite(array_B: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isfinite(array_B).reshape(len(array_B), -1).all(axis=1))
