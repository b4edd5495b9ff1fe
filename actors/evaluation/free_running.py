"""Pictures for people and scores: the generator decodes from its own tokens, as in use after training.

Letters: N pictures, T image tokens, V codebook entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.free_running import free_running
from common.config.sampling import SamplingSection
from common.guidance import guidance_scales
from common.protocols import Condition, Policy
from common.seeding import generator
from common.token_distribution import TokenDistribution


@torch.no_grad()
def sample_tokens(
    policy: Policy, condition: Condition, sampling: SamplingSection, seed: int, sample_indices: Sequence[int]
) -> Tensor:
    """Tokens int64 [N, T], one row per sample index.

    Each picture's random numbers depend on (seed, sample index) alone.
    """
    device = next(iter(condition.values())).device
    uniforms_NT = torch.stack(
        [
            torch.rand(policy.num_tokens, generator=generator(seed, "free running", index), dtype=torch.float64)
            for index in sample_indices
        ]
    ).to(device)
    # One context for all tokens: autocast keeps its cast weights until the outermost context ends.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=sampling.autocast == "bfloat16"):
        return free_running(
            policy,
            condition,
            guidance_scales(sampling, policy.num_tokens),
            lambda logits_NV, place: _next_token(logits_NV, uniforms_NT[:, place], sampling),
        )


def _next_token(logits_NV: Tensor, uniforms_N: Tensor, sampling: SamplingSection) -> Tensor:
    if sampling.temperature == 0:
        return logits_NV.argmax(dim=-1)
    return TokenDistribution.of(sampling).draw(logits_NV, uniforms_N[:, None])[:, 0]
