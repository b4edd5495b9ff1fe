"""What the samples of some groups are worth, as facts: the terms of the reward by name, before any weight.

Letters: B groups, G samples per group, T image tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from common.errors import RecipeError, RewardError
from common.judged_pictures import JudgedPictures


@dataclass(frozen=True)
class RewardTerms:
    """Float32. A term that was not measured is absent, never 0."""

    shape_BG: tuple[int, int]  # B, G
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # [B, G] by name
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # [B, G, T] by name; the mean of a map is the term
    higher_is_better: frozenset[str] = frozenset()  # names; of the others, lower is better
    failures: Mapping[int, str] = field(default_factory=dict)  # groups that a term failed on, whose terms are NaN
    missed: Mapping[str, Tensor] = field(default_factory=dict)
    """Bool [B, G] by name, of a judge that may miss a sample: such a sample teaches nothing. In its place the term
    has the mean of the group's others."""
    gradient_BTD: Tensor | None = (
        None  # of the weighted reward at the sampled codes, mean over samples; on request
    )
    pictures: JudgedPictures | None = None  # for judges elsewhere; on request

    def beside(self, others: Self) -> Self:
        """These and `others`, which are of the same groups."""
        return replace(
            self,
            terms={**self.terms, **others.terms},
            maps={**self.maps, **others.maps},
            higher_is_better=self.higher_is_better | others.higher_is_better,
            failures={**others.failures, **self.failures},
            missed={**self.missed, **others.missed},
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The groups of all parts, in order."""
        first, start = parts[0], 0
        failures: dict[int, str] = {}
        for part in parts:
            failures |= {start + group: reason for group, reason in part.failures.items()}
            start += part.shape_BG[0]
        return cls(
            shape_BG=(start, first.shape_BG[1]),
            terms={name: torch.cat([part.terms[name] for part in parts]) for name in first.terms},
            maps={name: torch.cat([part.maps[name] for part in parts]) for name in first.maps},
            higher_is_better=first.higher_is_better,
            failures=failures,
            missed={name: torch.cat([part.missed[name] for part in parts]) for name in first.missed},
            gradient_BTD=_joined([part.gradient_BTD for part in parts]),
            pictures=JudgedPictures.joined([part.pictures for part in parts if part.pictures is not None]),
        )

    def require_whole(self) -> None:
        """Raise RewardError where a term failed on a group, or gave a number that is not finite."""
        for reason in self.failures.values():
            raise RewardError(reason)
        if self.gradient_BTD is not None and not self.gradient_BTD.isfinite().all():
            raise RewardError("the reward's gradient is not finite")
        for name, term_BG in self.terms.items():
            if not term_BG.isfinite().all():
                raise RewardError(f"reward.{name} gave a number that is not finite")

    @property
    def dropped(self) -> Tensor | None:
        """Bool [B, G]: samples that some judge missed; None where there is no such judge."""
        return torch.stack(list(self.missed.values())).any(dim=0) if self.missed else None

    def better(self, names: Iterable[str]) -> dict[str, str]:
        """Of those of `names` that were measured: whether "higher" or "lower" is better."""
        return {
            name: "higher" if name in self.higher_is_better else "lower" for name in names if name in self.terms
        }

    def rewards(self, weights: Mapping[str, float]) -> Tensor:
        """r = Σ ± weight · term, [B, G]: minus where lower is better. Zeros without weights.

        Raises RecipeError where a term that has a weight was not measured.
        """
        total_BG = self._weighted(self.terms, weights)
        return torch.zeros(self.shape_BG) if total_BG is None else total_BG

    def reward_map(self, weights: Mapping[str, float]) -> Tensor | None:
        """The same at each token, [B, G, T]; its mean over tokens is the reward. None without maps."""
        if weights and not self.maps:
            return None
        return self._weighted(self.maps, weights)

    def _weighted(self, columns: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor | None:
        errors = None
        for name, weight in weights.items():
            if name not in columns:
                raise RecipeError(
                    f"reward.{name} has the weight {weight:g}, and these groups hold "
                    f"{', '.join(columns) or 'no terms'}: set its weight to 0, or record groups with it"
                )
            part = (-weight if name in self.higher_is_better else weight) * columns[name]
            errors = part if errors is None else errors + part
        return None if errors is None else -errors


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def without_misses(term_BG: Tensor) -> tuple[Tensor, Tensor]:
    """The term with the mean of its group in the place of NaN, and where that was, bool [B, G].

    A group with fewer than two numbers, out of two or more, has nothing to compare: it is NaN.
    """
    missed_BG = term_BG.isnan()
    too_few_B1 = (~missed_BG).sum(dim=1, keepdim=True) < min(2, term_BG.shape[1])
    mean_B1 = term_BG.nanmean(dim=1, keepdim=True).masked_fill(too_few_B1, float("nan"))
    return torch.where(missed_BG | too_few_B1, mean_B1, term_BG), missed_BG
