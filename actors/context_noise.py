"""The noisy teacher-forcing context.

Letters: B images, T image tokens, V codebook entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def noisy_context(
    target_tokens_BT: Tensor,
    noises: Sequence[float],
    codebook_size: int,
    generators: Sequence[torch.Generator],
    whole: bool = False,
) -> Tensor:
    """The first T-1 target tokens, each replaced by a uniform codebook id with its image's probability ξ.

    Drawn once per group: the group's samples and the learner share the context. The replacement may equal the
    original. One CPU generator per image; returns int64 [B, T-1]; all T tokens if `whole`.
    """
    context_BT = (target_tokens_BT if whole else target_tokens_BT[:, :-1]).clone()
    length = context_BT.shape[1]
    for context_T, noise, generator in zip(context_BT, noises, generators, strict=True):
        if noise == 0:
            continue
        replaced_T = (torch.rand(length, generator=generator) < noise).to(context_T.device)
        random_T = torch.randint(codebook_size, (length,), generator=generator).to(context_T.device)
        context_T.copy_(torch.where(replaced_T, random_T, context_T))
    return context_BT
