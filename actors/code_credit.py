"""What a reward actor says of its samples' codes, for credit by gradient.

Letters: B images, G samples per group, T image tokens, V codebook entries, D numbers of a code.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.code_credit import CodeCredit, codebook_codes
from common.protocols import ImageTokenizer
from common.token_distribution import TokenDistribution


def code_credit(
    head: Callable[[Tensor], Tensor],
    hidden_BTD: Tensor,
    samples_BGT: Tensor,
    gradient_BTD: Tensor,
    tokenizer: ImageTokenizer,
    distribution: TokenDistribution,
) -> CodeCredit:
    """The gradient with the mean sampled code, and how far apart the policy's proposals are in worth.

    Makes the logits again image by image, as `sample_groups` did: no more of them exist at once.
    """
    codes_VD = codebook_codes(tokenizer, samples_BGT.device)
    spreads = [
        worth_spread(head(hidden_TD), gradient_TD, codes_VD, distribution)
        for hidden_TD, gradient_TD in zip(hidden_BTD, gradient_BTD, strict=True)
    ]
    mean_code_BTD = torch.stack([codes_VD[samples_GT].mean(dim=0) for samples_GT in samples_BGT])
    return CodeCredit(gradient_BTD, mean_code_BTD, torch.stack(spreads))


def worth_spread(
    logits_TV: Tensor, gradient_TD: Tensor, codes_VD: Tensor, distribution: TokenDistribution
) -> Tensor:
    """Standard deviation over the entries of w · e, under the policy; float32 [T]."""
    with torch.autocast(logits_TV.device.type, enabled=False):
        probabilities_TV = distribution.probabilities(logits_TV)
        worth_TV = gradient_TD @ codes_VD.mT
        mean_T1 = (probabilities_TV * worth_TV).sum(dim=-1, keepdim=True)
        return (probabilities_TV * (worth_TV - mean_T1).square()).sum(dim=-1).sqrt()
