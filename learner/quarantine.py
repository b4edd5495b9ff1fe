"""Groups with a number that is not finite, made harmless. Letters: B groups."""

from dataclasses import replace
from typing import Any

import numpy as np

from common.schema import GroupBatch, reward_columns
from common.soundness import unsound_groups


def quarantine(groups: GroupBatch) -> tuple[GroupBatch, np.ndarray]:
    """The groups, and the weight of each in the loss, float32 [B]: 1, or 0 for one that cannot be learned from.

    Such a group stays, with zeros for rewards and log-probabilities: a rank without groups would leave the
    others waiting, and the loss is normalised by the groups that the step was given.
    """
    weights_B = np.ones(len(groups), dtype=np.float32)
    unsound = list(unsound_groups(groups))
    if not unsound:
        return groups, weights_B
    weights_B[unsound] = 0

    def emptied(column_B: np.ndarray) -> np.ndarray:
        column_B = np.array(column_B)  # the store's arrays are read-only
        column_B[unsound] = 0
        return column_B

    rewards: dict[str, Any] = {
        f"reward_{name}": emptied(column) for name, column in reward_columns(groups).items()
    }
    logprobs_BGT = emptied(groups.behaviour_logprobs_BGT)
    return replace(groups, behaviour_logprobs_BGT=logprobs_BGT, **rewards), weights_B
