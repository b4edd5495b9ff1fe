"""From logits to tokens and their log-probabilities.

Tokens are drawn by inverting the cumulative distribution at given uniform numbers, so that a draw depends on its
seed alone, not on the device or the rest of the batch.

Shape letters: N any number of rows, K draws per row, V codebook entries.
"""

import torch
from torch import Tensor


def log_probabilities(logits_NV: Tensor, tokens_NK: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at `tokens`, float32 [..., K]; tokens int64."""
    return torch.log_softmax(logits_NV.float() / temperature, dim=-1).gather(-1, tokens_NK)


@torch.no_grad()
def entropy(logprobs_NV: Tensor) -> Tensor:
    """-Σ p log p of each row of log-probabilities, in nats, [N]; without gradient."""
    return -logprobs_NV.exp().mul_(logprobs_NV).sum(dim=-1)


def draw(logits_NV: Tensor, uniforms_NK: Tensor, temperature: float = 1.0) -> Tensor:
    """Tokens int64 [N, K], each drawn from softmax(logits / temperature) at its uniform number in [0, 1).

    The cumulative sum is float64: in float32, a sum over 16,384 entries would misplace rare ones.
    """
    cumulative_NV = torch.softmax(logits_NV.float() / temperature, dim=-1).double().cumsum(dim=-1)
    points_NK = uniforms_NK.to(cumulative_NV) * cumulative_NV[:, -1:]
    tokens_NK = torch.searchsorted(cumulative_NV, points_NK, right=True)
    return tokens_NK.clamp_(max=logits_NV.shape[-1] - 1)


def keep_likely(logits_NV: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits with -inf outside the `top_k` most likely tokens (0: all) and the `top_p` nucleus (1: all)."""
    if 0 < top_k < logits_NV.shape[-1]:
        kth_N1 = logits_NV.topk(top_k, dim=-1).values[:, -1:]
        logits_NV = logits_NV.masked_fill(logits_NV < kth_N1, float("-inf"))
    if top_p < 1:
        sorted_NV, order_NV = logits_NV.sort(dim=-1, descending=True)
        probabilities_NV = sorted_NV.softmax(dim=-1)
        outside_NV = probabilities_NV.cumsum(dim=-1) - probabilities_NV >= top_p
        outside_NV = torch.zeros_like(outside_NV).scatter(-1, order_NV, outside_NV)
        logits_NV = logits_NV.masked_fill(outside_NV, float("-inf"))
    return logits_NV


def likely_log_probabilities(
    logits_NV: Tensor, tokens_NK: Tensor, temperature: float, top_k: int, top_p: float
) -> Tensor:
    """Log-probabilities float32 [N, K] of tokens under the truncation by `keep_likely` at this temperature.

    A token outside the truncation is added to it with its own probability. So the policy that sampled gets exactly
    the probabilities it drew with, and a later policy that no longer keeps a drawn token still gives it a finite
    log-probability with a gradient. The choice of kept tokens is constant for the gradient.
    """
    scaled_NV = logits_NV.float() / temperature
    kept_NV = keep_likely(scaled_NV, top_k, top_p)
    scaled_NK, is_kept_NK = scaled_NV.gather(-1, tokens_NK), kept_NV.gather(-1, tokens_NK).isfinite()
    total_N1 = kept_NV.logsumexp(dim=-1, keepdim=True)
    return scaled_NK - torch.where(is_kept_NK, total_N1, torch.logaddexp(total_N1, scaled_NK))
