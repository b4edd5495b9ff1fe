"""Group-relative advantages. Letters: B groups, G samples per group, T image tokens."""

from math import isqrt

from torch import Tensor
from torch.nn import functional as F

from common.config.recipe import Recipe
from common.errors import RecipeError
from common.reward_terms import RewardTerms


def advantages(terms: RewardTerms, recipe: Recipe) -> Tensor:
    """Advantages of samples [B, G], or of their tokens [B, G, T] if `advantage.credit` is token."""
    section, clip = recipe.advantage, recipe.learner.advantage_clip
    sample_BG = group_advantages(terms.rewards(recipe.reward), clip, section.normalize_std)
    if section.credit == "sample":
        return sample_BG
    map_BGT = terms.reward_map(recipe.reward)
    if map_BGT is None:
        raise RecipeError(
            "advantage.credit is token, and these groups were recorded without reward maps: record them with "
            "advantage.credit=token, or learn from them with advantage.credit=sample"
        )
    token_BGT = group_advantages(smoothed(map_BGT, section.radius), clip, section.normalize_std)
    return (1 - section.mix) * token_BGT + section.mix * sample_BG[:, :, None]


def group_advantages(rewards_BG: Tensor, clip: float, normalize_std: bool = True) -> Tensor:
    """A = (r - mean r) / (std r + 1e-8) over each group, unbiased std, clamped to ± `clip`; [B, G].

    With G samples, |A| never exceeds (G - 1) / √G, 2.47 at G = 8, so a clip of 5 has an effect from G = 27 on.
    Reward maps [B, G, T] are treated position by position. Without `normalize_std`, A = r - mean r, also clamped.
    """
    deviations_BG = rewards_BG - rewards_BG.mean(dim=1, keepdim=True)
    if normalize_std:
        deviations_BG = deviations_BG / (rewards_BG.std(dim=1, keepdim=True, unbiased=True) + 1e-8)
    return deviations_BG.clamp(-clip, clip)


def smoothed(map_BGT: Tensor, radius: int) -> Tensor:
    """Means over the (2 · radius + 1)² neighbourhood in the token grid, or its part inside the grid."""
    grid_size = isqrt(map_BGT.shape[-1])
    map_BGHW = map_BGT.unflatten(-1, (grid_size, grid_size))
    means_BGHW = F.avg_pool2d(map_BGHW, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    return means_BGHW.flatten(-2)
