"""Free-running sampling: the generator decodes from its own tokens, as its users will run it.

Letters: N pictures, T image tokens, V codebook entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.evaluation.guidance import guidance_scales, guided
from common.config.sampling import SamplingSection
from common.protocols import Condition, Policy
from common.seeding import generator
from common.token_distribution import draw, keep_likely


@torch.no_grad()
def sample_tokens(
    policy: Policy, condition: Condition, sampling: SamplingSection, seed: int, sample_indices: Sequence[int]
) -> Tensor:
    """Tokens int64 [N, T], one row a sample index.

    Each picture's random numbers come from (seed, sample index) alone. Where a token's guidance scale is
    not 1, each picture is decoded twice side by side, with its condition and without.
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
    # Around all tokens: autocast keeps the weights it has cast until the outermost context ends.
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
