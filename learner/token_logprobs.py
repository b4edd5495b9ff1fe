"""Log-probabilities of the tokens that the loss needs, without the logits of a whole batch in memory.

Over a codebook of 16,384 entries, logits are most of a learner's activations. They are made of the hidden
states some rows at a time, reduced to the few numbers that count, and made again in the backward pass.

Letters: B groups, G samples a group, T image tokens, N = B * T rows, D width of hidden states.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.token_distribution import log_probabilities

Head = Callable[[Tensor], Tensor]  # hidden states [N, D] to float32 logits [N, V]


class TokenLogprobs(NamedTuple):
    samples_BGT: Tensor  # float32, at the sampling temperature
    targets_BT: Tensor  # float32, at temperature 1


def token_logprobs(
    head: Head,
    hidden_BTD: Tensor,
    samples_BGT: Tensor,
    targets_BT: Tensor,
    temperature: float,
    rows_at_once: int,
) -> TokenLogprobs:
    """What the policy gives the sampled and the target tokens, int64. Logits exist for `rows_at_once` rows."""
    grid = targets_BT.shape
    rows = [hidden_BTD.flatten(0, 1), samples_BGT.transpose(1, 2).flatten(0, 1), targets_BT.flatten()[:, None]]
    chunks = list(zip(*(column.split(rows_at_once) for column in rows), strict=True))
    if len(chunks) == 1:  # nothing would be saved by making the logits twice
        parts = [_logprobs(head, temperature, *chunks[0])]
    else:
        parts = [checkpoint(_logprobs, head, temperature, *chunk, use_reentrant=False) for chunk in chunks]
    samples_NG, targets_N1 = map(torch.cat, zip(*parts, strict=True))
    return TokenLogprobs(samples_NG.unflatten(0, grid).transpose(1, 2), targets_N1.view(grid))


def _logprobs(
    head: Head, temperature: float, hidden_ND: Tensor, samples_NG: Tensor, targets_N1: Tensor
) -> tuple[Tensor, Tensor]:
    logits_NV = head(hidden_ND)
    if temperature != 1:
        return log_probabilities(logits_NV, samples_NG, temperature), log_probabilities(logits_NV, targets_N1)
    both = log_probabilities(logits_NV, torch.cat([samples_NG, targets_N1], dim=1))
    return both[:, :-1], both[:, -1:]
