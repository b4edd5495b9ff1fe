"""G samples per group under teacher forcing, with their log-probabilities under the behaviour policy.

Letters: B images, G samples per group, T image tokens, V codebook entries, D width of hidden states.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.token_distribution import draw, keep_likely, likely_log_probabilities, log_probabilities


def sample_groups(
    head: Callable[[Tensor], Tensor],
    hidden_BTD: Tensor,
    group_size: int,
    temperature: float,
    generators: Sequence[torch.Generator],
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Sampled tokens int64 [B, G, T] and their behaviour log-probs float32 [B, G, T].

    Every position is drawn independently from softmax(logits / temperature), truncated to the most likely tokens
    by `top_k` and `top_p`: the context is given, so one forward serves all samples. One CPU generator per image.
    `head` turns one image's hidden states [T, D] into float32 logits [T, V] at a time, to bound memory.
    """
    tokens, logprobs = [], []
    for hidden_TD, generator in zip(hidden_BTD, generators, strict=True):
        logits_TV = head(hidden_TD)
        uniforms_TG = torch.rand(logits_TV.shape[0], group_size, generator=generator, dtype=torch.float64)
        if top_k or top_p < 1:
            tokens_TG = draw(keep_likely(logits_TV.float() / temperature, top_k, top_p), uniforms_TG)
            logprobs_TG = likely_log_probabilities(logits_TV, tokens_TG, temperature, top_k, top_p)
        else:
            tokens_TG = draw(logits_TV, uniforms_TG, temperature)
            logprobs_TG = log_probabilities(logits_TV, tokens_TG, temperature)
        tokens.append(tokens_TG.T)
        logprobs.append(logprobs_TG.T)
    return torch.stack(tokens), torch.stack(logprobs)
