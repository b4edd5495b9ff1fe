"""The learner's rows through the policy: one row per group, or one per sample.

The samples of a teacher-forced group share one context, and so a row, but for the released scripts. Those of a
free-running group are their own contexts.

Letters: N rows, K samples per row, T image tokens. Row per group: N = B, K = G. Row per sample: N = B · G, K = 1.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.condition_drop import drop_conditions
from common.protocols import Condition, Policy
from learner.code_prices import CodePrices


@dataclass(frozen=True)
class Rows:
    condition: Condition
    context_NT: Tensor  # int64 [N, T-1]
    targets_NT: Tensor  # int64
    samples_NKT: Tensor  # int64
    behaviour_logprobs_NKT: Tensor  # float32
    advantages_NKT: Tensor | None  # float32; [N, K] if a sample's tokens share one; None: samples teach nothing
    prices: CodePrices | None = None  # of the codebook's entries, under credit by gradient

    def __len__(self) -> int:
        return len(self.context_NT)

    def __getitem__(self, rows: slice) -> Self:
        condition = {name: column[rows] for name, column in self.condition.items()}
        others: dict[str, Any] = {name: column for name, column in vars(self).items() if name != "condition"}
        cut: dict[str, Any] = {name: None if column is None else column[rows] for name, column in others.items()}
        return replace(self, condition=condition, **cut)

    def repeated(self) -> Self:
        """One row per sample: the same loss and the same gradient, at K times the work."""
        assert self.advantages_NKT is not None, "a row per sample needs an advantage per sample"
        num_samples = self.samples_NKT.shape[1]

        def for_each_sample(column: Tensor) -> Tensor:
            return column.repeat_interleave(num_samples, dim=0)

        return replace(
            self,
            condition={name: for_each_sample(column) for name, column in self.condition.items()},
            context_NT=for_each_sample(self.context_NT),
            targets_NT=for_each_sample(self.targets_NT),
            samples_NKT=self.samples_NKT.flatten(0, 1)[:, None],
            behaviour_logprobs_NKT=self.behaviour_logprobs_NKT.flatten(0, 1)[:, None],
            advantages_NKT=self.advantages_NKT.flatten(0, 1)[:, None],
        )

    def with_own_contexts(self) -> Self:
        """One row per sample, whose context it is itself: of free-running groups, without contexts so far."""
        rows = self.repeated()
        samples_NT = rows.samples_NKT[:, 0]
        return replace(rows, context_NT=samples_NT[:, :-1], targets_NT=samples_NT)

    def without_conditions(self, policy: Policy, dropped_N: Tensor) -> Self:
        """A copy with the null condition in the rows of `dropped_N` (bool)."""
        return replace(self, condition=drop_conditions(policy, self.condition, dropped_N))


def tensor_of(column: np.ndarray, device: torch.device) -> Tensor:
    """A group's column on the device; copied, because the store's arrays are read-only."""
    return torch.from_numpy(np.array(column)).to(device)
