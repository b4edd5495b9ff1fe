"""From logits to tokens and their log-probabilities.

Tokens are drawn by inverting the cumulative distribution at given uniform numbers, so that a draw depends on its
seed alone, not on the device or the rest of the batch.

Shape letters: N any number of rows, K draws per row, V codebook entries.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from common.config.algorithm import GroupSection
from common.config.sampling import SamplingSection


@dataclass(frozen=True)
class TokenDistribution:
    """softmax(logits / temperature) over the most likely tokens: what samples are drawn from, and what both sides
    of the importance ratio are probabilities of.
    """

    temperature: float = 1.0
    top_k: int = 0  # most likely tokens that are kept; 0: all
    top_p: float = 1.0  # share of the probability that the kept ones have, as few as have it; 1: all

    @classmethod
    def of(cls, section: GroupSection | SamplingSection) -> Self:
        return cls(section.temperature, section.top_k, section.top_p)

    @property
    def is_whole(self) -> bool:
        return self.top_k == 0 and self.top_p >= 1

    def scaled(self, logits_NV: Tensor) -> Tensor:
        """Float32 logits at the temperature, whole."""
        return logits_NV.float() / self.temperature

    def probabilities(self, logits_NV: Tensor) -> Tensor:
        """Of all tokens, float32 [N, V]; 0 outside the most likely ones."""
        return keep_likely(self.scaled(logits_NV), self.top_k, self.top_p).softmax(dim=-1)

    def draw(self, logits_NV: Tensor, uniforms_NK: Tensor) -> Tensor:
        """Tokens int64 [N, K], each drawn at its uniform number in [0, 1).

        Cumulates in float64: a float32 sum over 16,384 entries would misplace the rare ones.
        """
        scaled_NV = keep_likely(self.scaled(logits_NV), self.top_k, self.top_p)
        cumulative_NV = torch.softmax(scaled_NV, dim=-1).double().cumsum(dim=-1)
        points_NK = uniforms_NK.to(cumulative_NV) * cumulative_NV[:, -1:]
        tokens_NK = torch.searchsorted(cumulative_NV, points_NK, right=True)
        return tokens_NK.clamp_(max=logits_NV.shape[-1] - 1)

    def log_probabilities(self, logits_NV: Tensor, tokens_NK: Tensor) -> Tensor:
        """Log-probabilities float32 [..., K] of tokens int64 [..., K].

        A token outside the most likely ones counts as kept too, for its own probability. So the policy that
        sampled has exactly the probabilities that it drew with, and a later one, which may have moved a drawn
        token out of its most likely, still has a finite log-probability of it, with a gradient. Which tokens are
        kept is a constant to the gradient.
        """
        scaled_NV = self.scaled(logits_NV)
        if self.is_whole:
            return torch.log_softmax(scaled_NV, dim=-1).gather(-1, tokens_NK)
        kept_NV = keep_likely(scaled_NV, self.top_k, self.top_p)
        scaled_NK, is_kept_NK = scaled_NV.gather(-1, tokens_NK), kept_NV.gather(-1, tokens_NK).isfinite()
        total_N1 = kept_NV.logsumexp(dim=-1, keepdim=True)
        return scaled_NK - torch.where(is_kept_NK, total_N1, torch.logaddexp(total_N1, scaled_NK))


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


@torch.no_grad()
def entropy(logprobs_NV: Tensor) -> Tensor:
    """-Σ p log p of each row of log-probabilities, in nats, [N]; no gradient flows through it."""
    return -logprobs_NV.exp().mul_(logprobs_NV).sum(dim=-1)
