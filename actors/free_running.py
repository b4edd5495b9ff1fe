"""Free-running sampling: the generator goes on from its own tokens, by its key-value cache.

Letters: N pictures, T image tokens, V codebook entries.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.guidance import guided, with_null
from common.protocols import Condition, Policy


@torch.no_grad()
def free_running(
    policy: Policy, condition: Condition, scales_T: Sequence[float], pick: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Tokens int64 [N, T], each what `pick(logits_NV, t)` makes of the logits at place t.

    `scales_T` are the scales of guidance. If any is not 1, each picture is decoded twice in one batch, with and
    without its condition.
    """
    is_guided = any(scale != 1 for scale in scales_T)
    decoder = policy.start_decoding(with_null(policy, condition) if is_guided else condition)
    tokens: list[Tensor] = []
    for place, scale in enumerate(scales_T):
        last = tokens[-1].repeat(2 if is_guided else 1) if tokens else None
        logits_NV = decoder.next_logits(last)
        if is_guided:
            with_NV, without_NV = logits_NV.chunk(2)
            logits_NV = guided(with_NV, without_NV, scale)
        tokens.append(pick(logits_NV, place))
    return torch.stack(tokens, dim=1)
