"""The reward's terms of some groups' samples, before any weight.

Letters: B groups, G samples per group, T image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from common.config.algorithm import RewardSection


@dataclass(frozen=True)
class RewardTerms:
    """Float32. A map gives a term at each place in the picture; its mean over tokens is the term."""

    mse_BG: Tensor  # mean squared error, images in [-1, 1]
    lpips_BG: Tensor  # perceptual distance
    l1_BG: Tensor | None = None  # mean absolute error, if reward.l1_weight is above 0
    mse_map_BGT: Tensor | None = None  # maps only if advantage.credit is token
    lpips_map_BGT: Tensor | None = None
    l1_map_BGT: Tensor | None = None

    def present(self) -> dict[str, Tensor]:
        return {name: column for name, column in vars(self).items() if column is not None}

    def __getitem__(self, groups: slice) -> Self:
        return type(self)(**{name: column[groups] for name, column in self.present().items()})

    @classmethod
    def zeros(cls, like: Tensor, num_groups: int, group_size: int, num_tokens: int | None, has_l1: bool) -> Self:
        """Empty terms with the dtype and device of `like`; `num_tokens` is the size of the maps."""

        def term() -> Tensor:
            return like.new_zeros(num_groups, group_size)

        def term_map() -> Tensor | None:
            return None if num_tokens is None else like.new_zeros(num_groups, group_size, num_tokens)

        l1, l1_map = (term(), term_map()) if has_l1 else (None, None)
        return cls(term(), term(), l1, term_map(), term_map(), l1_map)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The groups of all parts, in order."""
        return cls(**{name: torch.cat([part.present()[name] for part in parts]) for name in parts[0].present()})

    def rewards(self, section: RewardSection) -> Tensor:
        """r = -(mse_weight · MSE + lpips_weight · LPIPS + l1_weight · L1), [B, G]."""
        return _weighted(self.mse_BG, self.lpips_BG, self.l1_BG, section)

    def reward_map(self, section: RewardSection) -> Tensor | None:
        """The rewards at each token, [B, G, T]; the mean over tokens is the reward. None without maps."""
        if self.mse_map_BGT is None or self.lpips_map_BGT is None:
            return None
        return _weighted(self.mse_map_BGT, self.lpips_map_BGT, self.l1_map_BGT, section)


def _weighted(mse: Tensor, lpips: Tensor, l1: Tensor | None, section: RewardSection) -> Tensor:
    errors = section.mse_weight * mse + section.lpips_weight * lpips
    if l1 is not None:
        errors = errors + section.l1_weight * l1
    return -errors
