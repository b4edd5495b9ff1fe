"""The GRPO loss with its off-policy corrections, and the priors, for groups that share one context.

All G samples of a group were drawn given the same context, so one forward gives the log-probabilities of all of
them, and one backward gives exactly the summed gradient of G repeated forwards and backwards (without dropout).

A correction weights a token by its truncated ratio min(π / π_behaviour, cap), without a gradient through it. If
the policy is the one that sampled, every correction has the value and the gradient of none.

Letters: B groups, G samples per group, T image tokens. Advantages are [B, G, T], or [B, G] if the tokens of a
sample share one.
"""

from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from common.config.algorithm import LearnerSection
from common.models.families import PolicyModule

Unit = Literal["token", "sequence"]  # the unit with its own ratio


class PolicyLoss(NamedTuple):
    loss_B: Tensor  # mean over samples and tokens
    ratio_BGT: Tensor  # π_θ / π_behaviour of each sampled token


def surrogate_loss(
    logprobs_BGT: Tensor, behaviour_logprobs_BGT: Tensor, advantages_BGT: Tensor | None, section: LearnerSection
) -> PolicyLoss:
    """The policy loss under the recipe's `learner.correction`, for one update per step.

    The policy before the step is then the policy itself: its detached log-probabilities need no extra forward.
    Without advantages there is no loss, and the ratios are a measurement.
    """
    if advantages_BGT is None:
        ratio_BGT = importance_ratio(logprobs_BGT.detach(), behaviour_logprobs_BGT, section.ratio)
        return PolicyLoss(ratio_BGT.new_zeros(len(ratio_BGT)), ratio_BGT)
    if section.correction == "truncated":
        return truncated_loss(
            logprobs_BGT, behaviour_logprobs_BGT, advantages_BGT, section.ratio_cap, section.ratio
        )
    if section.correction == "decoupled":
        proximal_BGT, settings = logprobs_BGT.detach(), (section.clip_range, section.ratio_cap, section.ratio)
        return decoupled_loss(logprobs_BGT, proximal_BGT, behaviour_logprobs_BGT, advantages_BGT, *settings)
    return policy_loss(logprobs_BGT, behaviour_logprobs_BGT, advantages_BGT, section.clip_range, section.ratio)


def importance_ratio(logprobs_BGT: Tensor, other_logprobs_BGT: Tensor, unit: Unit) -> Tensor:
    """π / π_other of each token, or of its sample.

    A sample's ratio is exp(mean_T log π - log π_other) (GSPO, arXiv 2507.18071), the same at all its tokens. Its
    gradient at a token is ratio · ∇log π of that token (GSPO-token): if the tokens share one advantage, their mean
    has the gradient of the sample's ratio; if not, each keeps its own credit.
    """
    log_ratio_BGT = logprobs_BGT - other_logprobs_BGT
    if unit == "sequence":
        mean_BG1 = log_ratio_BGT.detach().mean(dim=-1, keepdim=True)
        log_ratio_BGT = mean_BG1 + (logprobs_BGT - logprobs_BGT.detach())
    return torch.exp(log_ratio_BGT)


def policy_loss(
    logprobs_BGT: Tensor,
    behaviour_logprobs_BGT: Tensor,
    advantages_BGT: Tensor,
    clip_range: float,
    unit: Unit = "token",
) -> PolicyLoss:
    """mean_{G,T} max(-A ρ, -A clip(ρ, 1-ε, 1+ε)) with ρ = π_θ / π_behaviour, see `importance_ratio`."""
    ratio_BGT = importance_ratio(logprobs_BGT, behaviour_logprobs_BGT, unit)
    loss_BGT = _clipped(ratio_BGT, advantages_BGT, clip_range)
    return PolicyLoss(loss_BGT.mean(dim=(1, 2)), ratio_BGT)


def truncated_loss(
    logprobs_BGT: Tensor,
    behaviour_logprobs_BGT: Tensor,
    advantages_BGT: Tensor,
    cap: float,
    unit: Unit = "token",
) -> PolicyLoss:
    """Truncated importance sampling: a loss whose gradient is mean_{G,T} -min(ρ, cap) A ∇log π_θ.

    This is the weight of V-trace's policy gradient (IMPALA, arXiv 1802.01561), without a clip. The loss's value is
    mean_{G,T} -min(ρ, cap) A.
    """
    ratio_BGT = importance_ratio(logprobs_BGT, behaviour_logprobs_BGT, unit)
    weight_BGT = ratio_BGT.detach().clamp(max=cap)
    one_BGT = torch.exp(logprobs_BGT - logprobs_BGT.detach())  # its gradient is that of log π_θ
    loss_BGT = -_each_token(advantages_BGT) * weight_BGT * one_BGT
    return PolicyLoss(loss_BGT.mean(dim=(1, 2)), ratio_BGT)


def decoupled_loss(
    logprobs_BGT: Tensor,
    proximal_logprobs_BGT: Tensor,
    behaviour_logprobs_BGT: Tensor,
    advantages_BGT: Tensor,
    clip_range: float,
    cap: float,
    unit: Unit = "token",
) -> PolicyLoss:
    """Decoupled PPO (Hilton et al. 2021, arXiv 2110.00641) with a truncated weight.

    mean_{G,T} w max(-A r, -A clip(r, 1-ε, 1+ε)) with r = π_θ / π_prox and w = min(π_prox / π_behaviour, cap) per
    token: the clip limits the step from the proximal policy, and the weight corrects for the age of the samples.
    The log-probabilities of both other policies are constants.
    """
    weight_BGT = importance_ratio(proximal_logprobs_BGT, behaviour_logprobs_BGT, unit).clamp(max=cap)
    step_BGT = importance_ratio(logprobs_BGT, proximal_logprobs_BGT, unit)
    loss_BGT = weight_BGT * _clipped(step_BGT, advantages_BGT, clip_range)
    ratio_BGT = importance_ratio(logprobs_BGT, behaviour_logprobs_BGT, unit)
    return PolicyLoss(loss_BGT.mean(dim=(1, 2)), ratio_BGT)


def ce_prior(target_logprobs_BT: Tensor) -> Tensor:
    """Next-token cross-entropy on the target tokens given the noisy context, mean over tokens; [B]."""
    return -target_logprobs_BT.mean(dim=1)


def frozen_reference(policy: PolicyModule, section: LearnerSection) -> PolicyModule | None:
    """The reference of the KL prior: a frozen copy of the initial policy; None under another prior.

    What does not train is shared, not copied. Take it before the first update, before loading a resumed state, and
    before turning dropout on.
    """
    if section.prior != "kl":
        return None
    shared = {id(parameter): parameter for parameter in policy.parameters() if not parameter.requires_grad}
    return deepcopy(policy, shared).eval().requires_grad_(False)


def kl_prior(logprobs_BGT: Tensor, reference_logprobs_BGT: Tensor) -> Tensor:
    """KL(π_θ ‖ π_reference) per token, estimated on the sampled tokens as in GRPO (arXiv 2402.03300); [B].

    mean_{G,T} ρ - 1 - log ρ with ρ = π_reference / π_θ: never negative, and unbiased if tokens are drawn from π_θ.
    """
    log_ratio_BGT = reference_logprobs_BGT - logprobs_BGT
    return (torch.expm1(log_ratio_BGT) - log_ratio_BGT).mean(dim=(1, 2))


@torch.no_grad()
def kl_to_behaviour(logprobs_BGT: Tensor, behaviour_logprobs_BGT: Tensor) -> Tensor:
    """KL(π_behaviour ‖ π_θ) per token, estimated on the sampled tokens: mean_{G,T} ρ - 1 - log ρ; [B].

    Without gradient. Unbiased, because the tokens were drawn from π_behaviour, and never negative (Schulman's k3,
    joschu.net/blog/kl-approx.html).
    """
    log_ratio_BGT = logprobs_BGT - behaviour_logprobs_BGT
    return (torch.expm1(log_ratio_BGT) - log_ratio_BGT).mean(dim=(1, 2))


def _clipped(ratio_BGT: Tensor, advantages_BGT: Tensor, clip_range: float) -> Tensor:
    advantages_BGT = _each_token(advantages_BGT)
    clipped_BGT = ratio_BGT.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages_BGT * ratio_BGT, -advantages_BGT * clipped_BGT)


def _each_token(advantages_BGT: Tensor) -> Tensor:
    return advantages_BGT[:, :, None] if advantages_BGT.dim() == 2 else advantages_BGT
