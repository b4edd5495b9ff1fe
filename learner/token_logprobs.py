"""Log-probabilities of the tokens in the loss, without a whole batch's logits in memory.

Over a codebook of 16,384 entries, logits are most of a learner's activations. They are computed from the hidden
states for some rows at a time, reduced to the few numbers needed, and recomputed in the backward pass.

Letters: B groups, G samples per group, T image tokens, N = B * T rows, D width of hidden states.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.token_distribution import TokenDistribution, entropy, keep_likely

Head = Callable[[Tensor], Tensor]  # hidden states [N, D] to float32 logits [N, V]


class TokenLogprobs(NamedTuple):
    samples_BGT: Tensor  # float32, at the sampling temperature
    targets_BT: Tensor  # float32, at temperature 1
    entropy_BT: Tensor  # float32, at the sampling temperature; a measurement, outside the graph


def token_logprobs(
    head: Head,
    hidden_BTD: Tensor,
    samples_BGT: Tensor,
    targets_BT: Tensor,
    distribution: TokenDistribution,
    rows_at_once: int,
) -> TokenLogprobs:
    """What the policy gives the sampled and the target tokens, int64. Logits exist for `rows_at_once` rows."""
    logprobs = partial(_logprobs if distribution.is_whole else _likely_logprobs, distribution, head)
    grid = targets_BT.shape
    rows = [hidden_BTD.flatten(0, 1), samples_BGT.transpose(1, 2).flatten(0, 1), targets_BT.flatten()[:, None]]
    chunks = list(zip(*(column.split(rows_at_once) for column in rows), strict=True))
    if len(chunks) == 1:  # nothing would be saved by making the logits twice
        parts = [logprobs(*chunks[0])]
    else:
        parts = [checkpoint(logprobs, *chunk, use_reentrant=False) for chunk in chunks]
    samples_NG, targets_N1, entropy_N = map(torch.cat, zip(*parts, strict=True))
    return TokenLogprobs(
        samples_NG.unflatten(0, grid).transpose(1, 2), targets_N1.view(grid), entropy_N.view(grid)
    )


def _logprobs(
    distribution: TokenDistribution, head: Head, hidden_ND: Tensor, samples_NG: Tensor, targets_N1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of samples [N, G] and targets [N, 1], and the entropy [N].

    The entropy comes last, after everything that the backward pass needs, so that the recomputation skips it.
    """
    logits_NV = head(hidden_ND).float()
    logprobs_NV = torch.log_softmax(distribution.scaled(logits_NV), dim=-1)
    if distribution.temperature != 1:
        samples, targets = logprobs_NV.gather(1, samples_NG), logits_NV.log_softmax(-1).gather(1, targets_N1)
    else:
        both = logprobs_NV.gather(1, torch.cat([samples_NG, targets_N1], dim=1))
        samples, targets = both[:, :-1], both[:, -1:]
    return samples, targets, entropy(logprobs_NV)


def _likely_logprobs(
    distribution: TokenDistribution, head: Head, hidden_ND: Tensor, samples_NG: Tensor, targets_N1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_logprobs`, with samples and entropy within the most likely tokens."""
    logits_NV = head(hidden_ND).float()
    samples = distribution.log_probabilities(logits_NV, samples_NG)
    targets = logits_NV.log_softmax(-1).gather(1, targets_N1)
    scaled_NV = distribution.scaled(logits_NV.detach())
    kept_NV = keep_likely(scaled_NV, distribution.top_k, distribution.top_p).log_softmax(dim=-1)
    return samples, targets, entropy(kept_NV.clamp(min=torch.finfo(kept_NV.dtype).min))
