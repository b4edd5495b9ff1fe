"""learner.method decoder: the tokenizer's decoder learns to draw the codes that the policy takes.

    loss = mean over images and their samples of  d(D(x), I)
           + clean · d(D(z), I) + anchor · d(D(x), D_0(x)) + ema · d(D(x), D̄(x)) - gan · C(D(x))

for samples x_t ~ π(· | c, context_<t), the image's own codes z, d = Σ weight · term, both those of the reward, a
moving average D̄ of the decoder and a discriminator C (`beside_decoder.py`). The paper (arXiv 2512.19680,
supplement C.2) has MSE and LPIPS, and the first distance alone. Policy, encoder and codebook stay as they are, so
samples are never old; of a ticket it takes samples, codes and images.

Letters: B groups, K samples per group, k with the image's own codes beside them, T image tokens, D numbers of a
code, C, H, W of a picture.
"""

from copy import deepcopy
from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from common.config.recipe import Recipe
from common.models.families import TokenizerModule
from common.pixels import to_tensor
from common.schema import GroupBatch
from learner.beside_decoder import Beside, DecoderAverage, PatchDiscriminator
from learner.picture_loss import PictureLoss
from learner.rows import tensor_of
from learner.step_sums import StepSums


class DecoderTraining:
    def __init__(self, tokenizer: TokenizerModule, recipe: Recipe, device: torch.device):
        """Loads the frozen metric. Raises UserError."""
        self._tokenizer, self._device, self._section = tokenizer, device, recipe.decoder
        # before the first update, and before a resumed state is loaded
        self._initial = deepcopy(tokenizer).requires_grad_(False) if recipe.decoder.anchor_weight else None
        self._pictures = PictureLoss.of(recipe, device)
        self._average = DecoderAverage(tokenizer, recipe.decoder.ema_decay) if recipe.decoder.ema_weight else None
        self._discriminator = PatchDiscriminator(recipe, device) if recipe.decoder.gan_weight else None
        self.beside: tuple[Beside, ...] = tuple(filter(None, (self._average, self._discriminator)))

    def loss(
        self, groups: GroupBatch, weights_B: np.ndarray, micro: slice, forward: nn.Module
    ) -> tuple[Tensor, StepSums]:
        """The loss summed over the groups in `micro`, with their weights, and the sums to report.

        `forward` is the tokenizer, or DDP around it: called, it decodes codes.
        """
        pixels_BCHW = to_tensor(np.array(groups.source["pixels"][micro]), self._device)
        tokens_BKT = tensor_of(groups.sampled_tokens_BGT[micro], self._device).long()
        weights = tensor_of(weights_B[micro], self._device)
        clean_B1T = tensor_of(groups.target_tokens_BT[micro], self._device).long()[:, None]
        K = tokens_BKT.shape[1]
        taken = torch.cat([tokens_BKT, clean_B1T], dim=1) if self._section.clean_weight else tokens_BKT
        decoded_BkCHW = self._decoded(forward, taken)  # in one forward: DDP takes no two
        terms = self._pictures.terms(decoded_BkCHW[:, :K], pixels_BCHW)
        errors_BK = self._pictures.weighed(terms)
        picture_B = errors_BK.mean(dim=1) * weights
        loss_B = picture_B + self._regularised(decoded_BkCHW, tokens_BKT, pixels_BCHW) * weights
        own_B = torch.zeros_like(loss_B)  # the discriminator's
        if self._discriminator is not None:
            fooled_B, own_B = self._discriminator.losses(decoded_BkCHW[:, :K], pixels_BCHW)
            loss_B = loss_B + fooled_B * weights
        sums = {
            "loss": loss_B.detach().sum(),
            "policy_loss": picture_B.detach().sum(),
            "reward_mean": -picture_B.detach().sum(),
        }
        if K > 1:
            sums["reward_std"] = (errors_BK.detach().std(dim=1) * weights).sum()
        term_sums = {name: (term_BK.detach().mean(dim=1) * weights).sum() for name, term_BK in terms.items()}
        return (loss_B + own_B * weights).sum(), StepSums.of(weights_B[micro], sums, term_sums)

    def _regularised(self, decoded_BkCHW: Tensor, tokens_BKT: Tensor, pixels_BCHW: Tensor) -> Tensor | float:
        """What is added to the paper's loss, [B]."""
        added, K = [], tokens_BKT.shape[1]
        if self._section.clean_weight:
            clean_B1 = self._pictures.weighed(self._pictures.terms(decoded_BkCHW[:, K:], pixels_BCHW))
            added.append(self._section.clean_weight * clean_B1[:, 0])
        average = None if self._average is None else self._average.tokenizer
        for weight, other in ((self._section.anchor_weight, self._initial), (self._section.ema_weight, average)):
            if other is None:
                continue
            with torch.no_grad():
                other_BKCHW = self._decoded(other, tokens_BKT)
            terms = self._pictures.terms(decoded_BkCHW[:, :K].flatten(0, 1)[:, None], other_BKCHW.flatten(0, 1))
            moved_BK = self._pictures.weighed(terms)[:, 0].unflatten(0, tokens_BKT.shape[:2])
            added.append(weight * moved_BK.mean(dim=1))
        return torch.stack(added).sum(dim=0) if added else 0.0

    def _decoded(self, forward: nn.Module, tokens_BKT: Tensor) -> Tensor:
        """Pictures float32 [B, K, C, H, W]."""
        side = isqrt(tokens_BKT.shape[2])
        codes_NTD = self._tokenizer.codes(tokens_BKT.flatten(0, 1))
        decoded_NCHW = forward(codes_NTD.mT.unflatten(2, (side, side)))
        return decoded_NCHW.float().unflatten(0, tokens_BKT.shape[:2])
