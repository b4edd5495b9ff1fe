"""Conditions left out now and then, so that the generator stays good without one, which guidance needs."""

import torch
from torch import Tensor

from common.protocols import Condition, Policy


def drop_conditions(policy: Policy, condition: Condition, dropped_B: Tensor) -> Condition:
    """`condition` with the null one where `dropped_B` (bool) says so."""
    if not dropped_B.any():
        return condition
    null = policy.null_condition(condition)
    return {
        name: torch.where(dropped_B.to(column.device).view(-1, *[1] * (column.ndim - 1)), null[name], column)
        for name, column in condition.items()
    }
