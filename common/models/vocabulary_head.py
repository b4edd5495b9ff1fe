"""The product of hidden states and the vocabulary's embeddings, in float32 also where autocast has bfloat16.

A bfloat16 logit of 8 to 16 is rounded to a sixteenth, and log-probabilities and ratios with it. On tensor cores
the float32 result of bfloat16 operands is no slower (docs/log.md).

Shape letters: N rows, D width, V entries.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.models.lora import LoraLinear


def float32_logits(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """Logits float32 [..., V] of hidden states [..., D] and weights [V, D]; under autocast of its dtype."""
    kind = hidden_ND.device.type
    if not torch.is_autocast_enabled(kind):
        return F.linear(hidden_ND, weight_VD).float()
    dtype = torch.get_autocast_dtype(kind)
    narrow_ND, narrow_VD = hidden_ND.to(dtype).flatten(0, -2), weight_VD.to(dtype)
    with torch.autocast(kind, enabled=False):
        if kind == "cuda":
            logits_NV: Tensor = _Float32Product.apply(narrow_ND, narrow_VD)
        else:  # the same numbers, where the tensor cores' product has no kernel
            logits_NV = F.linear(narrow_ND.float(), narrow_VD.float())
    return logits_NV.unflatten(0, hidden_ND.shape[:-1])


def head_logits(hidden_ND: Tensor, head: nn.Linear) -> Tensor:
    """The same of a head, which may have a bias and an adapter."""
    logits_NV = float32_logits(hidden_ND, head.weight)
    if head.bias is not None:
        logits_NV = logits_NV + head.bias
    return logits_NV + head.added(hidden_ND).float() if isinstance(head, LoraLinear) else logits_NV


class _Float32Product(torch.autograd.Function):
    """x Wᵀ; `torch.mm` to another dtype has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_VD)
        return torch.mm(x_ND, weight_VD.T, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad_NV: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        x_ND, weight_VD = ctx.saved_tensors
        narrow_NV = grad_NV.to(x_ND.dtype)
        return narrow_NV @ weight_VD, narrow_NV.T @ x_ND if ctx.needs_input_grad[1] else None
