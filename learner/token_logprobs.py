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
from learner.code_prices import CodePrices

Head = Callable[[Tensor], Tensor]  # hidden states [N, D] to float32 logits [N, V]


class TokenLogprobs(NamedTuple):
    samples_BGT: Tensor  # float32, at the sampling temperature
    targets_BT: Tensor  # float32, at temperature 1
    entropy_BT: Tensor  # float32, at the sampling temperature; a measurement, outside the graph
    advantage_BT: Tensor | None = None  # float32; E_π A, whose value is nothing and whose gradient is all


def token_logprobs(
    head: Head,
    hidden_BTD: Tensor,
    samples_BGT: Tensor,
    targets_BT: Tensor,
    distribution: TokenDistribution,
    rows_at_once: int,
    prices: CodePrices | None = None,
) -> TokenLogprobs:
    """What the policy gives the sampled and the target tokens, int64, and all entries at once by their `prices`.

    Logits exist for `rows_at_once` rows.
    """
    logprobs = partial(_logprobs if distribution.is_whole else _likely_logprobs, distribution, head, prices)
    grid = targets_BT.shape
    rows = [hidden_BTD.flatten(0, 1), samples_BGT.transpose(1, 2).flatten(0, 1), targets_BT.flatten()[:, None]]
    if prices is not None:
        rows += [prices.slope_BTD.flatten(0, 1), prices.mean_code_BTD.flatten(0, 1)]
    chunks = list(zip(*(column.split(rows_at_once) for column in rows), strict=True))
    if len(chunks) == 1:  # nothing would be saved by making the logits twice
        parts = [logprobs(*chunks[0])]
    else:
        parts = [checkpoint(logprobs, *chunk, use_reentrant=False) for chunk in chunks]
    samples_NG, targets_N1, *advantage_N, entropy_N = map(torch.cat, zip(*parts, strict=True))
    return TokenLogprobs(
        samples_NG.unflatten(0, grid).transpose(1, 2),
        targets_N1.view(grid),
        entropy_N.view(grid),
        advantage_N[0].view(grid) if advantage_N else None,
    )


def _logprobs(
    distribution: TokenDistribution,
    head: Head,
    prices: CodePrices | None,
    hidden_ND: Tensor,
    samples_NG: Tensor,
    targets_N1: Tensor,
    *places: Tensor,
) -> tuple[Tensor, ...]:
    """Log-probs of samples [N, G] and targets [N, 1], with prices the expected advantage [N], and the entropy [N].

    The entropy comes last, after everything that the backward pass needs, so that the recomputation skips it.
    """
    logits_NV = head(hidden_ND).float()
    logprobs_NV = torch.log_softmax(distribution.scaled(logits_NV), dim=-1)
    if distribution.temperature != 1:
        samples, targets = logprobs_NV.gather(1, samples_NG), logits_NV.log_softmax(-1).gather(1, targets_N1)
    else:
        both = logprobs_NV.gather(1, torch.cat([samples_NG, targets_N1], dim=1))
        samples, targets = both[:, :-1], both[:, -1:]
    expected = [] if prices is None else [_expected(prices, logprobs_NV.exp(), *places)]
    return samples, targets, *expected, entropy(logprobs_NV)


def _likely_logprobs(
    distribution: TokenDistribution,
    head: Head,
    prices: CodePrices | None,
    hidden_ND: Tensor,
    samples_NG: Tensor,
    targets_N1: Tensor,
    *places: Tensor,
) -> tuple[Tensor, ...]:
    """As `_logprobs`, with samples and entropy within the most likely tokens."""
    logits_NV = head(hidden_ND).float()
    samples = distribution.log_probabilities(logits_NV, samples_NG)
    targets = logits_NV.log_softmax(-1).gather(1, targets_N1)
    expected = [] if prices is None else [_expected(prices, distribution.probabilities(logits_NV), *places)]
    scaled_NV = distribution.scaled(logits_NV.detach())
    kept_NV = keep_likely(scaled_NV, distribution.top_k, distribution.top_p).log_softmax(dim=-1)
    return samples, targets, *expected, entropy(kept_NV.clamp(min=torch.finfo(kept_NV.dtype).min))


def _expected(prices: CodePrices, probabilities_NV: Tensor, slope_ND: Tensor, mean_code_ND: Tensor) -> Tensor:
    """Σ_v π(v) A(v), [N]; A is a constant to the gradient."""
    advantages_NV = prices.advantages(probabilities_NV.detach(), slope_ND, mean_code_ND)
    return (probabilities_NV * advantages_NV).sum(dim=-1)
