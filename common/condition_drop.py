"""Random condition drop: keeps the generator good without a condition, which guidance needs."""

import torch
from torch import Tensor

from common.protocols import Condition, Policy


def drop_conditions(policy: Policy, condition: Condition, dropped_B: Tensor) -> Condition:
    """`condition`, replaced by the null condition where `dropped_B` (bool) is true."""
    if not dropped_B.any():
        return condition
    null = policy.null_condition(condition)
    return {
        name: torch.where(dropped_B.to(column.device).view(-1, *[1] * (column.ndim - 1)), null[name], column)
        for name, column in condition.items()
    }
