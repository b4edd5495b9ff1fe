"""Group-relative advantages. Letters: B groups, G samples a group."""

from torch import Tensor

from common.config.algorithm import RewardSection


def rewards(reward_mse_BG: Tensor, reward_lpips_BG: Tensor, section: RewardSection) -> Tensor:
    """r = -(mse_weight · MSE + lpips_weight · LPIPS), float32 [B, G]."""
    return -(section.mse_weight * reward_mse_BG + section.lpips_weight * reward_lpips_BG)


def group_advantages(rewards_BG: Tensor, clip: float) -> Tensor:
    """A = (r - mean r) / (std r + 1e-8) over each group, unbiased std, clamped to ± `clip`; [B, G].

    With G samples |A| never exceeds (G - 1) / √G, 2.47 at G = 8, so a clip of 5 acts from G = 27 on.
    """
    mean_B1 = rewards_BG.mean(dim=1, keepdim=True)
    std_B1 = rewards_BG.std(dim=1, keepdim=True, unbiased=True)
    return ((rewards_BG - mean_B1) / (std_B1 + 1e-8)).clamp(-clip, clip)
