"""G samples per group under teacher forcing, with their log-probabilities under the behaviour policy.

Letters: B images, G samples per group, T image tokens, V codebook entries, D width of hidden states.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.token_distribution import TokenDistribution


def sample_groups(
    head: Callable[[Tensor], Tensor],
    hidden_BTD: Tensor,
    group_size: int,
    distribution: TokenDistribution,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Sampled tokens int64 [B, G, T] and their behaviour log-probs float32 [B, G, T].

    Every position is drawn independently: the context is given, so one forward serves all samples. One CPU
    generator per image. Works image by image: `head` turns hidden states [T, D] into float32 logits [T, V], and no
    more of them exist at once.
    """
    tokens, logprobs = [], []
    for hidden_TD, generator in zip(hidden_BTD, generators, strict=True):
        logits_TV = head(hidden_TD)
        uniforms_TG = torch.rand(logits_TV.shape[0], group_size, generator=generator, dtype=torch.float64)
        tokens_TG = distribution.draw(logits_TV, uniforms_TG)
        tokens.append(tokens_TG.T)
        logprobs.append(distribution.log_probabilities(logits_TV, tokens_TG).T)
    return torch.stack(tokens), torch.stack(logprobs)
