"""Free-running sampling: the generator decodes from its own tokens, as its users will run it.

Letters: N pictures, T image tokens, V codebook entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.config.service import SamplingSection
from common.protocols import Condition, Policy
from common.seeding import generator
from common.token_distribution import draw, keep_likely


@torch.no_grad()
def sample_tokens(
    policy: Policy, condition: Condition, sampling: SamplingSection, seed: int, sample_indices: Sequence[int]
) -> Tensor:
    """Tokens int64 [N, T], one row a sample index.

    Each picture's random numbers come from (seed, sample index) alone. With a guidance scale s other than
    1, logits are u + s · (c - u) of the conditional c and the unconditional u.
    """
    some_column = next(iter(condition.values()))
    guided = sampling.guidance_scale != 1
    if guided:
        null = policy.null_condition(condition)
        condition = {name: torch.cat([column, null[name]]) for name, column in condition.items()}
    uniforms_NT = torch.stack(
        [
            torch.rand(policy.num_tokens, generator=generator(seed, "free running", index), dtype=torch.float64)
            for index in sample_indices
        ]
    ).to(some_column.device)
    decoder = policy.start_decoding(condition)
    tokens: list[Tensor] = []
    for uniforms_N in uniforms_NT.T:
        last = tokens[-1].repeat(2 if guided else 1) if tokens else None
        logits_NV = decoder.next_logits(last)
        if guided:
            with_NV, without_NV = logits_NV.chunk(2)
            logits_NV = without_NV + sampling.guidance_scale * (with_NV - without_NV)
        tokens.append(_next_token(logits_NV, uniforms_N, sampling))
    return torch.stack(tokens, dim=1)


def _next_token(logits_NV: Tensor, uniforms_N: Tensor, sampling: SamplingSection) -> Tensor:
    if sampling.temperature == 0:
        return logits_NV.argmax(dim=-1)
    likely_NV = keep_likely(logits_NV / sampling.temperature, sampling.top_k, sampling.top_p)
    return draw(likely_NV, uniforms_N[:, None])[:, 0]
