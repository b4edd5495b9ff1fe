"""Credit by gradient: what every codebook entry is worth at every place, as an advantage.

    A_t(v) = clip((Q_t(v) - E_π Q_t) / s) - curvature · (|e_v - ē_t|² - E_π |e_v - ē_t|²)

with Q_t(v) = w_t · (e_v - ē_t), the change of the reward to first order. The policy loss is -mean_t Σ_v π_θ(v) A_t(v),
with A as a constant: an expectation over all entries, so no sample's probability is divided by another.

Letters: B groups, T image tokens, N rows (places), V codebook entries, D numbers of a code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.code_credit import CodeCredit
from common.config.recipe import Recipe

_TINY = 1e-8  # beside a spread, as beside a group's standard deviation


@dataclass(frozen=True)
class CodePrices:
    """Of some groups; the codebook is of all."""

    slope_BTD: Tensor  # w / s
    mean_code_BTD: Tensor  # ē
    codes_VD: Tensor
    clip: float
    curvature: float

    def __getitem__(self, groups: slice) -> "CodePrices":
        return CodePrices(
            self.slope_BTD[groups], self.mean_code_BTD[groups], self.codes_VD, self.clip, self.curvature
        )

    @torch.no_grad()
    def advantages(self, probabilities_NV: Tensor, slope_ND: Tensor, mean_code_ND: Tensor) -> Tensor:
        """A of every entry in rows of the flattened groups, float32 [N, V]."""
        with torch.autocast(slope_ND.device.type, enabled=False):
            worth_NV = slope_ND @ self.codes_VD.mT
            advantages_NV = _centred(worth_NV, probabilities_NV).clamp_(-self.clip, self.clip)
            if self.curvature:
                squares_NV = self.codes_VD.square().sum(dim=1) - 2 * mean_code_ND @ self.codes_VD.mT
                advantages_NV -= self.curvature * _centred(squares_NV, probabilities_NV)
            return advantages_NV


def _centred(values_NV: Tensor, probabilities_NV: Tensor) -> Tensor:
    return values_NV - (probabilities_NV * values_NV).sum(dim=-1, keepdim=True)


def code_prices(
    credit: CodeCredit,
    codes_VD: Tensor,
    recipe: Recipe,
    weights_B: Tensor,
    over_ranks: Callable[[Tensor], Tensor] = lambda total: total,
) -> CodePrices:
    """Prices of all groups of a step that this rank has.

    `weights_B` is 0 for groups that do not count; `over_ranks` adds up a tensor over the ranks, for a scale that all
    of them share.
    """
    spread_BT = credit.spread_BT
    if recipe.advantage.scale == "image":
        scale_BT = spread_BT.square().mean(dim=1, keepdim=True).sqrt()
    elif recipe.advantage.scale == "global":
        squares_B = spread_BT.double().square().mean(dim=1) * weights_B
        total, count = over_ranks(torch.stack([squares_B.sum(), weights_B.double().sum()]))
        scale_BT = (total / count.clamp(min=1)).sqrt().float().expand(len(spread_BT), 1)
    else:
        scale_BT = spread_BT
    slope_BTD = credit.gradient_BTD / (scale_BT + _TINY)[:, :, None]
    clip = recipe.learner.advantage_clip
    return CodePrices(slope_BTD, credit.mean_code_BTD, codes_VD, clip, recipe.advantage.curvature)
