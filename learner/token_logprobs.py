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

from common.token_distribution import entropy, keep_likely, likely_log_probabilities

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
    temperature: float,
    rows_at_once: int,
    top_k: int = 0,
    top_p: float = 1.0,
) -> TokenLogprobs:
    """The policy's log-probs of the sampled and the target tokens (int64), with logits for `rows_at_once` rows.

    With `top_k` or `top_p`, those of the samples are within the policy's own most likely tokens.
    """
    logprobs = partial(_likely_logprobs, top_k, top_p) if top_k or top_p < 1 else _logprobs
    grid = targets_BT.shape
    rows = [hidden_BTD.flatten(0, 1), samples_BGT.transpose(1, 2).flatten(0, 1), targets_BT.flatten()[:, None]]
    chunks = list(zip(*(column.split(rows_at_once) for column in rows), strict=True))
    if len(chunks) == 1:  # recomputing the logits would save nothing
        parts = [logprobs(head, temperature, *chunks[0])]
    else:
        parts = [checkpoint(logprobs, head, temperature, *chunk, use_reentrant=False) for chunk in chunks]
    samples_NG, targets_N1, entropy_N = map(torch.cat, zip(*parts, strict=True))
    return TokenLogprobs(
        samples_NG.unflatten(0, grid).transpose(1, 2), targets_N1.view(grid), entropy_N.view(grid)
    )


def _logprobs(
    head: Head, temperature: float, hidden_ND: Tensor, samples_NG: Tensor, targets_N1: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of samples [N, G] and targets [N, 1], and the entropy [N].

    The entropy comes last, after everything that the backward pass needs, so that the recomputation skips it.
    """
    logits_NV = head(hidden_ND).float()
    logprobs_NV = torch.log_softmax(logits_NV / temperature, dim=-1)
    if temperature != 1:
        samples, targets = logprobs_NV.gather(1, samples_NG), logits_NV.log_softmax(-1).gather(1, targets_N1)
    else:
        both = logprobs_NV.gather(1, torch.cat([samples_NG, targets_N1], dim=1))
        samples, targets = both[:, :-1], both[:, -1:]
    return samples, targets, entropy(logprobs_NV)


def _likely_logprobs(
    top_k: int,
    top_p: float,
    head: Head,
    temperature: float,
    hidden_ND: Tensor,
    samples_NG: Tensor,
    targets_N1: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_logprobs`, with samples and entropy within the most likely tokens."""
    logits_NV = head(hidden_ND).float()
    samples = likely_log_probabilities(logits_NV, samples_NG, temperature, top_k, top_p)
    targets = logits_NV.log_softmax(-1).gather(1, targets_N1)
    kept_NV = keep_likely(logits_NV.detach() / temperature, top_k, top_p).log_softmax(dim=-1)
    return samples, targets, entropy(kept_NV.clamp(min=torch.finfo(kept_NV.dtype).min))
