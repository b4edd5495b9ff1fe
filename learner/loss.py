"""The GRPO loss and the cross-entropy prior, for groups that share one context.

All G samples of a group were drawn under the same context, so the logits of one forward give the
log-probabilities of all of them, and one backward gives exactly the gradient that G repeated forwards and
backwards would add up to (dropout off).

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.token_distribution import log_probabilities


class PolicyLoss(NamedTuple):
    loss_B: Tensor  # mean over samples and tokens
    ratio_BGT: Tensor  # π_θ / π_behaviour of each sampled token


def policy_loss(
    logits_BTV: Tensor,
    sampled_tokens_BGT: Tensor,
    behaviour_logprobs_BGT: Tensor,
    advantages_BG: Tensor,
    clip_range: float,
    temperature: float,
) -> PolicyLoss:
    """mean_{G,T} max(-A ρ, -A clip(ρ, 1-ε, 1+ε)) with ρ = exp(log π_θ - log π_behaviour) per token."""
    tokens_BTG = sampled_tokens_BGT.transpose(1, 2)
    logprobs_BGT = log_probabilities(logits_BTV, tokens_BTG, temperature).transpose(1, 2)
    ratio_BGT = torch.exp(logprobs_BGT - behaviour_logprobs_BGT)
    clipped_BGT = ratio_BGT.clamp(1 - clip_range, 1 + clip_range)
    advantages_BG1 = advantages_BG[:, :, None]
    loss_BGT = torch.maximum(-advantages_BG1 * ratio_BGT, -advantages_BG1 * clipped_BGT)
    return PolicyLoss(loss_BGT.mean(dim=(1, 2)), ratio_BGT)


def ce_prior(logits_BTV: Tensor, target_tokens_BT: Tensor) -> Tensor:
    """Next-token cross-entropy on the target tokens given the noisy context, mean over tokens; [B]."""
    return F.cross_entropy(logits_BTV.transpose(1, 2), target_tokens_BT, reduction="none").mean(dim=1)
