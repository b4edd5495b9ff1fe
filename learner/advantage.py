"""Group-relative advantages. Letters: B groups, G samples per group, T image tokens."""

from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config.recipe import Recipe
from common.errors import RecipeError
from common.reward_terms import RewardTerms
from learner.code_prices import CodePrices


def advantages(terms: RewardTerms, recipe: Recipe) -> Tensor | None:
    """Advantages of samples [B, G], or of their tokens [B, G, T] if `advantage.credit` is token.

    Under credit by gradient those of the terms without a gradient, or None without such terms: they are divided by
    the spread of the whole reward, as under credit by sample, so that a term with little weight has little to say.
    """
    section, clip, dropped_BG = recipe.advantage, recipe.learner.advantage_clip, terms.dropped
    rewards_BG = terms.rewards(recipe.reward.weights)
    if section.credit == "gradient":
        if not recipe.sampled_weights:
            return None
        sampled_BG = terms.rewards(recipe.sampled_weights)
        return group_advantages(sampled_BG, clip, section.normalize_std, rewards_BG, dropped_BG)
    sample_BG = group_advantages(rewards_BG, clip, section.normalize_std, dropped_BG=dropped_BG)
    if section.credit == "sample":
        return sample_BG
    map_BGT = terms.reward_map(recipe.reward.weights)
    if map_BGT is None:
        raise RecipeError(
            "advantage.credit is token, and these groups were recorded without reward maps: record them with "
            "advantage.credit=token, or learn from them with advantage.credit=sample"
        )
    smooth_BGT = smoothed(map_BGT, section.radius)
    token_BGT = group_advantages(smooth_BGT, clip, section.normalize_std, dropped_BG=dropped_BG)
    return (1 - section.mix) * token_BGT + section.mix * sample_BG[:, :, None]


def group_advantages(
    rewards_BG: Tensor,
    clip: float,
    normalize_std: bool = True,
    spread_of_BG: Tensor | None = None,
    dropped_BG: Tensor | None = None,
) -> Tensor:
    """A = (r - mean r) / (std r + 1e-8) over each group, unbiased std, clamped to ± `clip`; [B, G].

    With G samples |A| never exceeds (G - 1) / √G, 2.47 at G = 8, so a clip of 5 acts from G = 27 on. Reward maps
    [B, G, T] are taken position by position. Without `normalize_std` A = r - mean r, clamped alike. Where all
    rewards are equal, A is 0: their mean differs from them by rounding, and the std does not hide it. The std can
    be that of other rewards, `spread_of_BG`. Samples of `dropped_BG` (bool) have A = 0: the group is the others.
    """
    if dropped_BG is not None and dropped_BG.any():
        advantages_BG = torch.zeros_like(rewards_BG)
        for group, kept_G in enumerate(~dropped_BG):
            kept = slice(group, group + 1), kept_G
            spread = None if spread_of_BG is None else spread_of_BG[kept]
            advantages_BG[kept] = group_advantages(rewards_BG[kept], clip, normalize_std, spread)
        return advantages_BG
    is_flat_B1 = (rewards_BG == rewards_BG[:, :1]).all(dim=1, keepdim=True)
    deviations_BG = rewards_BG - rewards_BG.mean(dim=1, keepdim=True)
    if normalize_std:
        spread_of_BG = rewards_BG if spread_of_BG is None else spread_of_BG
        deviations_BG = deviations_BG / (spread_of_BG.std(dim=1, keepdim=True, unbiased=True) + 1e-8)
    return deviations_BG.clamp(-clip, clip).masked_fill(is_flat_B1, 0.0)


def flat_groups(advantages_BGT: Tensor | None, prices: CodePrices | None = None) -> Tensor:
    """Bool [B]: groups that teach nothing: no sample, token of one, or codebook entry is better than others."""
    kinds = (advantages_BGT, None if prices is None else prices.slope_BTD)
    flat = [(kind == 0).flatten(1).all(dim=1) for kind in kinds if kind is not None]
    return torch.stack(flat).all(dim=0)


def reward_spread(rewards_BG: Tensor) -> Tensor:
    """Standard deviation over each group's samples, [B]; 0 for one sample."""
    return rewards_BG.std(dim=1) if rewards_BG.shape[1] > 1 else torch.zeros_like(rewards_BG[:, 0])


def smoothed(map_BGT: Tensor, radius: int) -> Tensor:
    """Means over the (2 · radius + 1)² neighbourhood in the token grid, or its part inside the grid."""
    grid_size = isqrt(map_BGT.shape[-1])
    map_BGHW = map_BGT.unflatten(-1, (grid_size, grid_size))
    means_BGHW = F.avg_pool2d(map_BGHW, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    return means_BGHW.flatten(-2)
