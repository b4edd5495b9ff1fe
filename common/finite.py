"""Non-finite groups: finding them, leaving them out, making them harmless. Letters: B groups.

Actors leave such groups out and report them. The learner checks again, because one non-finite number in a step's
loss spoils the whole gradient.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.schema import ARRAYS, GroupBatch, changed


def non_finite_groups(groups: GroupBatch) -> dict[int, str]:
    """By row number, the reason why a group cannot be learned from."""
    reasons = {int(row): "non-finite log-probability" for row in _not_finite(groups.behaviour_logprobs_BGT)}
    reasons |= {
        int(row): "non-finite gradient" for column in groups.credit.values() for row in _not_finite(column)
    }
    for columns in (groups.reward_maps, groups.reward_terms):
        for name, column in columns.items():
            reasons |= {int(row): f"non-finite reward.{name}" for row in _not_finite(column)}
    return dict(sorted(reasons.items()))


def take_rows(groups: GroupBatch, rows: Sequence[int]) -> GroupBatch:
    """The groups of `rows` alone, in that order."""
    taken = changed(groups, lambda column: column[list(rows)], ARRAYS)
    return replace(taken, image_id_B=tuple(groups.image_id_B[row] for row in rows))


def quarantine(groups: GroupBatch) -> tuple[GroupBatch, np.ndarray]:
    """The groups, and each group's weight in the loss, float32 [B]: 1, or 0 if it cannot be learned from.

    Such a group stays, with zeros for rewards and log-probabilities: a rank without groups would leave the others
    waiting, and the loss is normalised by the groups that the step was given.
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

    return changed(groups, emptied, ("behaviour_logprobs_BGT", "reward_terms", "reward_maps", "credit")), weights_B


def _not_finite(array_B: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isfinite(array_B).all(axis=tuple(range(1, array_B.ndim))))
