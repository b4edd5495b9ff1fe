"""Non-finite groups: finding them, leaving them out, making them harmless. Letters: B groups.

Actors leave such groups out and report them. The learner checks again, because one non-finite number in a step's
loss spoils the whole gradient.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.schema import GroupBatch, reward_columns


def non_finite_groups(groups: GroupBatch) -> dict[int, str]:
    """By row number, the reason why a group cannot be learned from."""
    reasons = {int(row): "non-finite log-probability" for row in _not_finite(groups.behaviour_logprobs_BGT)}
    for column in reward_columns(groups).values():
        reasons |= {int(row): "non-finite reward" for row in _not_finite(column)}
    return dict(sorted(reasons.items()))


def take_rows(groups: GroupBatch, rows: Sequence[int]) -> GroupBatch:
    """Only the groups of `rows`, in that order."""
    arrays: dict[str, Any] = {
        name: column[rows] for name, column in vars(groups).items() if isinstance(column, np.ndarray)
    }
    return replace(
        groups,
        image_id_B=tuple(groups.image_id_B[row] for row in rows),
        condition={name: column[rows] for name, column in groups.condition.items()},
        **arrays,
    )


def quarantine(groups: GroupBatch) -> tuple[GroupBatch, np.ndarray]:
    """The groups, and each group's weight in the loss, float32 [B]: 1, or 0 if it cannot be learned from.

    Such a group stays, with zero rewards and log-probabilities: a rank without groups would leave the others
    waiting, and the loss is normalised by the number of groups given to the step.
    """
    weights_B = np.ones(len(groups), dtype=np.float32)
    bad = list(non_finite_groups(groups))
    if not bad:
        return groups, weights_B
    weights_B[bad] = 0

    def emptied(column_B: np.ndarray) -> np.ndarray:
        column_B = np.array(column_B)  # the store's arrays are read-only
        column_B[bad] = 0
        return column_B

    rewards: dict[str, Any] = {
        f"reward_{name}": emptied(column) for name, column in reward_columns(groups).items()
    }
    logprobs_BGT = emptied(groups.behaviour_logprobs_BGT)
    return replace(groups, behaviour_logprobs_BGT=logprobs_BGT, **rewards), weights_B


def _not_finite(array_B: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isfinite(array_B).reshape(len(array_B), -1).all(axis=1))
