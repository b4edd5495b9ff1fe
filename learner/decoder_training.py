"""learner.method decoder: the tokenizer's decoder learns to draw the codes that the policy takes.

    loss = mean over images and their samples of Σ weight · term(D(x), I),  x_t ~ π(· | c, context_<t)

with the terms and weights of the reward, MSE and LPIPS in the paper (arXiv 2512.19680, supplement C.2). Policy,
encoder and codebook stay as they are; so samples are never old, and of a ticket it takes them and the images.

Letters: B groups, K samples per group, T image tokens, D numbers of a code, C, H, W of a picture.
"""

from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from common.config.recipe import Recipe
from common.models.families import TokenizerModule
from common.pixels import to_tensor
from common.schema import GroupBatch
from learner.picture_loss import PictureLoss
from learner.step_sums import StepSums, numbers


class DecoderTraining:
    def __init__(self, tokenizer: TokenizerModule, recipe: Recipe, device: torch.device):
        """Loads the frozen metric. Raises UserError."""
        self._tokenizer, self._device = tokenizer, device
        self._pictures = PictureLoss(recipe, device)

    def loss(
        self, groups: GroupBatch, weights_B: np.ndarray, micro: slice, forward: nn.Module
    ) -> tuple[Tensor, StepSums]:
        """The loss summed over the groups in `micro`, with their weights, and the sums to report.

        `forward` is the tokenizer, or DDP around it: called, it decodes codes.
        """
        pixels_BCHW = to_tensor(np.array(groups.source["pixels"][micro]), self._device)
        tokens_BKT = torch.from_numpy(np.array(groups.sampled_tokens_BGT[micro])).to(self._device).long()
        weights = torch.from_numpy(weights_B[micro]).to(self._device)
        B, K, T = tokens_BKT.shape
        codes_NTD = self._tokenizer.codes(tokens_BKT.flatten(0, 1))
        decoded_NCHW = forward(codes_NTD.mT.unflatten(2, (isqrt(T), isqrt(T)))).float()
        terms = self._pictures.terms(decoded_NCHW.unflatten(0, (B, K)), pixels_BCHW)
        errors_BK = self._pictures.weighed(terms)
        loss_B = errors_BK.mean(dim=1) * weights
        sums = {
            "loss": loss_B.detach().sum(),
            "policy_loss": loss_B.detach().sum(),
            "reward_mean": -loss_B.detach().sum(),
        }
        if K > 1:
            sums["reward_std"] = (errors_BK.detach().std(dim=1) * weights).sum()
        term_sums = {name: (term_BK.detach().mean(dim=1) * weights).sum() for name, term_BK in terms.items()}
        totals = numbers([*sums.values(), *term_sums.values()])
        num_sound = int(weights_B[micro].sum())
        return loss_B.sum(), StepSums(
            num_groups=num_sound,
            num_quarantined=B - num_sound,
            sums=dict(zip(sums, totals, strict=False)),
            reward_terms=dict(zip(term_sums, totals[len(sums) :], strict=True)),
        )
