"""Free-running sampling: the generator decodes from its own tokens, as in use after training.

Classifier-free guidance sets how strongly each token is pulled towards its condition.

Letters: N pictures, T image tokens, V codebook entries.
"""

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import Tensor

from common.config.sampling import SamplingSection
from common.protocols import Condition, Policy
from common.seeding import generator
from common.token_distribution import draw, keep_likely


@torch.no_grad()
def sample_tokens(
    policy: Policy, condition: Condition, sampling: SamplingSection, seed: int, sample_indices: Sequence[int]
) -> Tensor:
    """Tokens int64 [N, T], one row per sample index.

    Each picture's random numbers depend on (seed, sample index) alone. If any token's guidance scale is not 1,
    each picture is decoded twice in one batch, with and without its condition.
    """
    device = next(iter(condition.values())).device
    scales_T = guidance_scales(sampling, policy.num_tokens)
    is_guided = any(scale != 1 for scale in scales_T)
    if is_guided:
        null = policy.null_condition(condition)
        condition = {name: torch.cat([column, null[name]]) for name, column in condition.items()}
    uniforms_NT = torch.stack(
        [
            torch.rand(policy.num_tokens, generator=generator(seed, "free running", index), dtype=torch.float64)
            for index in sample_indices
        ]
    ).to(device)
    tokens: list[Tensor] = []
    # One context for all tokens: autocast keeps its cast weights until the outermost context ends.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=sampling.autocast == "bfloat16"):
        decoder = policy.start_decoding(condition)
        for scale, uniforms_N in zip(scales_T, uniforms_NT.T, strict=True):
            last = tokens[-1].repeat(2 if is_guided else 1) if tokens else None
            logits_NV = decoder.next_logits(last)
            if is_guided:
                with_NV, without_NV = logits_NV.chunk(2)
                logits_NV = guided(with_NV, without_NV, scale)
            tokens.append(_next_token(logits_NV, uniforms_N, sampling))
    return torch.stack(tokens, dim=1)


def _next_token(logits_NV: Tensor, uniforms_N: Tensor, sampling: SamplingSection) -> Tensor:
    if sampling.temperature == 0:
        return logits_NV.argmax(dim=-1)
    likely_NV = keep_likely(logits_NV / sampling.temperature, sampling.top_k, sampling.top_p)
    return draw(likely_NV, uniforms_N[:, None])[:, 0]


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


def guided(with_NV: Tensor, without_NV: Tensor, scale: float) -> Tensor:
    """u + s · (c - u) for logits c with the condition and u without it; c itself at s = 1."""
    return with_NV if scale == 1 else without_NV + scale * (with_NV - without_NV)
