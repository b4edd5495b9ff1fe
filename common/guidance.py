"""Classifier-free guidance: logits u + s · (c - u), of c with the condition and u without it.

Letters: N rows, T image tokens, V codebook entries, D width of hidden states.
"""

from collections.abc import Callable
from math import cos, pi
from typing import NamedTuple

import torch
from torch import Tensor

from common.config.sampling import SamplingSection
from common.protocols import Condition, Policy


def guided(with_NV: Tensor, without_NV: Tensor, scale: float) -> Tensor:
    """u + s · (c - u) for logits c with the condition and u without it; c itself at s = 1."""
    return with_NV if scale == 1 else without_NV + scale * (with_NV - without_NV)


def guidance_scales(sampling: SamplingSection, num_tokens: int) -> list[float]:
    """The guidance scale s of each of T tokens; 1 means no guidance.

    power_cosine: 1 + (s - 1) · (1 - cos(π (t / T)^p)) / 2 at token t = 0 … T-1, MDTv2's schedule (arXiv
    2303.14389) over tokens instead of denoising steps. Early tokens are drawn freely, for diversity; late tokens
    follow the condition closely.
    """
    scale = sampling.guidance_scale
    match sampling.guidance_schedule:
        case "power_cosine":
            places = [(token / num_tokens) ** sampling.guidance_power for token in range(num_tokens)]
            return [1 + (scale - 1) * (1 - cos(pi * place)) / 2 for place in places]
        case "interval":
            stop = num_tokens if sampling.guidance_stop is None else sampling.guidance_stop
            guided = range(sampling.guidance_start, stop)
            return [scale if token in guided else 1.0 for token in range(num_tokens)]
        case "constant":
            return [scale] * num_tokens


def with_null(policy: Policy, condition: Condition) -> Condition:
    """2N rows: the condition, then its unconditional twin."""
    null = policy.null_condition(condition)
    kind = next(iter(condition.values())).device.type
    with torch.autocast(kind, enabled=False):  # under bfloat16 it does not join captions, which are float16
        return {name: torch.cat([column, null[name]]) for name, column in condition.items()}


class GuidedPolicy(NamedTuple):
    """A policy at a scale of guidance, under teacher forcing: one forward of [condition; null] rows.

    Its hidden states are those of both, side by side, so that logits can be made for some places at a time.
    """

    policy: Policy
    scale: float  # 1: the policy as it is
    forward: Callable[..., Tensor]  # the policy, or what wraps it

    def hidden(self, condition: Condition, context_NT: Tensor) -> Tensor:
        """[N, T, D]; under guidance [N, T, 2D]."""
        if self.scale == 1:
            return self.forward(condition, context_NT, head=False)
        hidden = self.forward(with_null(self.policy, condition), context_NT.repeat(2, 1), head=False)
        return torch.cat(hidden.chunk(2), dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [..., V] of hidden states."""
        if self.scale == 1:
            return self.policy.logits(hidden)
        with_condition, without = hidden.chunk(2, dim=-1)
        return guided(self.policy.logits(with_condition), self.policy.logits(without), self.scale)
