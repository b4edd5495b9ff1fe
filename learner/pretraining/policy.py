"""The loss that trains a generator from scratch: next-token cross-entropy on the tokenizer's codes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from common.protocols import Condition, Policy


def next_token_loss(
    policy: Policy, tokens_BT: Tensor, condition: Condition, condition_drop: float, generator: torch.Generator
) -> tuple[Tensor, Mapping[str, float]]:
    """Mean cross-entropy of int64 `tokens` [B, T]; each condition is dropped with probability `condition_drop`."""
    dropped_B = torch.rand(len(tokens_BT), generator=generator).to(tokens_BT.device) < condition_drop
    null = policy.null_condition(condition)
    mixed = {name: _where(dropped_B, null[name], value) for name, value in condition.items()}
    logits_BTV = policy(mixed, tokens_BT[:, :-1])
    loss = F.cross_entropy(logits_BTV.transpose(1, 2), tokens_BT)
    accuracy = (logits_BTV.detach().argmax(dim=-1) == tokens_BT).float().mean()
    return loss, {"token accuracy": float(accuracy)}


def _where(chosen_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen_B.view(-1, *[1] * (no.dim() - 1)), yes, no)
