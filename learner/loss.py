"""The GRPO loss and the cross-entropy prior, for groups that share one context.

All G samples of a group were drawn under the same context, so one forward gives the log-probabilities of all
of them, and one backward gives exactly the gradient that G repeated forwards and backwards would add up to
(dropout off).

Letters: B groups, G samples a group, T image tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    loss_B: Tensor  # mean over samples and tokens
    ratio_BGT: Tensor  # π_θ / π_behaviour of each sampled token


def policy_loss(
    logprobs_BGT: Tensor, behaviour_logprobs_BGT: Tensor, advantages_BG: Tensor, clip_range: float
) -> PolicyLoss:
    """mean_{G,T} max(-A ρ, -A clip(ρ, 1-ε, 1+ε)) with ρ = exp(log π_θ - log π_behaviour) per token."""
    ratio_BGT = torch.exp(logprobs_BGT - behaviour_logprobs_BGT)
    clipped_BGT = ratio_BGT.clamp(1 - clip_range, 1 + clip_range)
    advantages_BG1 = advantages_BG[:, :, None]
    loss_BGT = torch.maximum(-advantages_BG1 * ratio_BGT, -advantages_BG1 * clipped_BGT)
    return PolicyLoss(loss_BGT.mean(dim=(1, 2)), ratio_BGT)


def ce_prior(target_logprobs_BT: Tensor) -> Tensor:
    """Next-token cross-entropy on the target tokens given the noisy context, mean over tokens; [B]."""
    return -target_logprobs_BT.mean(dim=1)
