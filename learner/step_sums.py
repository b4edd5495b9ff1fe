"""What a rank measures of its part of a step, to be added up over the ranks and reported."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from common.types import StepReport

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class StepSums:
    """Sums over a rank's groups; the ranks' sums are added up."""

    num_groups: int = 0  # learned from
    num_quarantined: int = 0  # of weight 0, and in no other sum
    num_flat: int = 0  # of num_groups, those that teach nothing: all samples have the same reward
    num_dropped: int = 0  # samples of those groups that a judge gave no score
    sums: Mapping[str, float] = field(default_factory=dict)  # of the measurements of a StepReport, by name
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    better: Mapping[str, str] = field(default_factory=dict)  # of the user's own terms, as in a StepReport
    num_measured: Mapping[str, int] = field(default_factory=dict)
    """Of num_groups, those that a term or a measurement is of, by its name, where that may not be all."""

    @classmethod
    def of(cls, weights_B: np.ndarray, sums: Mapping[str, Tensor], terms: Mapping[str, Tensor]) -> Self:
        """Of groups with these weights, 1 or 0, and what was summed over them, by name."""
        totals, num_sound = numbers([*sums.values(), *terms.values()]), int(weights_B.sum())
        return cls(
            num_groups=num_sound,
            num_quarantined=len(weights_B) - num_sound,
            sums=dict(zip(sums, totals, strict=False)),
            reward_terms=dict(zip(terms, totals[len(sums) :], strict=True)),
        )

    def __add__(self, other: "StepSums") -> "StepSums":
        return StepSums(
            self.num_groups + other.num_groups,
            self.num_quarantined + other.num_quarantined,
            self.num_flat + other.num_flat,
            self.num_dropped + other.num_dropped,
            _added(self.sums, other.sums),
            _added(self.reward_terms, other.reward_terms),
            {**self.better, **other.better},
            _added(self.num_measured, other.num_measured),
        )

    def report(self, step: int, grad_norm: float, stage_seconds: dict[str, float]) -> StepReport:
        def mean(name: str, total: float) -> float:
            return total / max(1, self.num_measured.get(name, self.num_groups))

        means: dict[str, Any] = {name: mean(name, self.sums.get(name, 0.0)) for name in MEASURED}
        return StepReport(
            step=step,
            num_groups=self.num_groups,
            num_quarantined=self.num_quarantined,
            num_flat=self.num_flat,
            num_dropped=self.num_dropped,
            grad_norm=grad_norm,
            is_bad=not math.isfinite(grad_norm),
            stage_seconds=stage_seconds,
            reward_terms={name: mean(name, total) for name, total in self.reward_terms.items()},
            better=self.better,
            **means,
        )


MEASURED = (
    "loss", "policy_loss", "ce_prior", "kl_prior", "reward_mean", "reward_std", "clip_fraction", "kl", "entropy",
)  # fmt: skip
"""What a step report has the mean of over groups."""


def _added(one: Mapping[str, Number], other: Mapping[str, Number]) -> dict[str, Number]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in dict.fromkeys((*one, *other))}


def numbers(sums: Sequence[Tensor]) -> list[float]:
    """One transfer for all: a GPU is waited for at each."""
    return torch.stack([each.float() for each in sums]).tolist()
