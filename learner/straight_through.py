"""learner.method ste: the error of a decoded picture goes back to the policy straight through the choice of codes.

At every place one entry of the codebook is taken and decoded; on the way back its code counts as the mean code
under softmax(logits / τ), through which the decoder's gradient g goes on:

    forward   e_v,  v = argmax (logits [+ Gumbel noise])
    backward  ∂L/∂logit_u = p_u / τ · (e_u - Σ_v p_v e_v) · g,   p = softmax((logits [+ Gumbel noise]) / τ)

(Bengio et al. 2013, arXiv 1308.3432; with noise Jang et al. 2017, arXiv 1611.01144). The loss is the picture's
plus β · CE; tokenizer and metric are frozen. No samples are compared, so no group is ever old: of a ticket it
takes the images, their codes and the noisy contexts.

Letters: B groups, T image tokens, V codebook entries, D numbers of a code.
"""

from collections.abc import Callable
from functools import partial
from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.code_credit import codebook_codes
from common.condition_drop import drop_conditions
from common.config.methods import SteSection
from common.config.recipe import Recipe
from common.machine import autocast
from common.models.families import PolicyModule
from common.models.loading import load_tokenizer
from common.pixels import to_tensor
from common.protocols import Condition
from common.schema import GroupBatch
from common.seeding import generator
from common.token_distribution import entropy
from learner.loss import ce_prior
from learner.picture_loss import PictureLoss
from learner.rows import tensor_of
from learner.step_sums import StepSums


class StraightThrough:
    def __init__(self, policy: PolicyModule, recipe: Recipe, device: torch.device):
        """Loads the frozen tokenizer and metric. Raises UserError."""
        tokenizer = load_tokenizer(recipe, device)
        is_published = recipe.profile == "published"
        self._codes_VD = (
            tokenizer.stored_codes().detach().float() if is_published else codebook_codes(tokenizer, device)
        )
        if recipe.reward.decode_dtype != "float32":
            tokenizer = tokenizer.for_scoring(getattr(torch, recipe.reward.decode_dtype))
        self._tokenizer, self._policy, self._recipe, self._device = tokenizer, policy, recipe, device
        self._pictures = PictureLoss.of(recipe, device)
        self._drop = recipe.context.condition_drop if is_published else 0.0  # else the actors have dropped them

    def loss(
        self, groups: GroupBatch, weights_B: np.ndarray, micro: slice, forward: nn.Module
    ) -> tuple[Tensor, StepSums]:
        """The loss summed over the groups in `micro`, with their weights, and the sums to report."""
        recipe, tensor = self._recipe, partial(tensor_of, device=self._device)
        condition: Condition = {name: tensor(column[micro]) for name, column in groups.condition.items()}
        if self._drop:
            dropped_B = torch.rand(len(groups.context_tokens_BT[micro])) < self._drop
            condition = drop_conditions(self._policy, condition, dropped_B)
        pixels_BCHW = to_tensor(np.array(groups.source["pixels"][micro]), self._device)
        targets_BT = tensor(groups.target_tokens_BT[micro]).long()
        with autocast(recipe.compute, self._device):
            hidden_BTD = forward(condition, tensor(groups.context_tokens_BT[micro]).long(), head=False)
            codes = self._codes(hidden_BTD, targets_BT, groups.sample_index_B[micro].tolist())
        codes_BTD, target_logprobs_BT, entropy_BT = codes
        side = isqrt(targets_BT.shape[1])
        decoded_BCHW = self._tokenizer.decode_codes(codes_BTD.mT.unflatten(2, (side, side)))
        terms = self._pictures.terms(decoded_BCHW.float()[:, None], pixels_BCHW)
        weights = tensor(weights_B[micro])
        picture_B = self._pictures.weighed(terms)[:, 0] * weights
        ce_B = ce_prior(target_logprobs_BT) * weights
        loss_B = picture_B + recipe.learner.ce_weight * ce_B
        sums = {
            "loss": loss_B.detach().sum(),
            "policy_loss": picture_B.detach().sum(),
            "ce_prior": ce_B.detach().sum(),
            "reward_mean": -picture_B.detach().sum(),
            "entropy": (entropy_BT.mean(dim=1) * weights).sum(),
        }
        term_sums = {name: (term_B1[:, 0].detach() * weights).sum() for name, term_B1 in terms.items()}
        return loss_B.sum(), StepSums.of(weights_B[micro], sums, term_sums)

    def _codes(
        self, hidden_BTD: Tensor, targets_BT: Tensor, sample_indices: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image by image, made again on the way back: the logits of more than one never exist at once."""
        draws = [partial(generator, self._recipe.seed, "straight through", index) for index in sample_indices]
        own = partial(straight_through, self._policy.logits, self._codes_VD, self._recipe.ste)
        parts = [
            checkpoint(own, draw, hidden_TD, targets_T, use_reentrant=False)
            for draw, hidden_TD, targets_T in zip(draws, hidden_BTD, targets_BT, strict=True)
        ]
        codes_BTD, target_logprobs_BT, entropy_BT = map(torch.stack, zip(*parts, strict=True))
        return codes_BTD, target_logprobs_BT, entropy_BT


def straight_through(
    head: Callable[[Tensor], Tensor],
    codes_VD: Tensor,
    section: SteSection,
    draw: Callable[[], torch.Generator],
    hidden_TD: Tensor,
    targets_T: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The taken codes float32 [T, D], the target tokens' log-probabilities [T], and the entropy [T] (no gradient).

    `draw` gives the CPU generator of the image's Gumbel noise, always in the same state.
    """
    logits_TV = head(hidden_TD).float()
    with torch.autocast(logits_TV.device.type, enabled=False):
        logprobs_TV = logits_TV.log_softmax(dim=-1)
        scores_TV = logits_TV
        if section.sample == "gumbel":  # minus the logarithm of an exponential draw
            exponential_TV = torch.empty(logits_TV.shape).exponential_(generator=draw())
            scores_TV = logits_TV - exponential_TV.log().to(logits_TV.device)
        mean_code_TD = (scores_TV / section.tau).softmax(dim=-1) @ codes_VD
        taken_TD = codes_VD[scores_TV.argmax(dim=-1)]
        code_TD = taken_TD + (mean_code_TD - mean_code_TD.detach())
        targets = logprobs_TV.gather(1, targets_T[:, None])[:, 0]
    return code_TD, targets, entropy(logprobs_TV)
