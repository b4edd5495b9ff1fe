"""The reward with its gradient at the sampled codes: one pass forth through the decoder, and one back.

Letters: B images, G samples per image, n pictures of a piece, T image tokens, D numbers of a code, C, H, W of a
picture.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor

from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import RewardTerm, Sources
from common.clock import StageClock
from common.config.algorithm import RewardSection
from common.errors import RewardError
from common.protocols import ImageTokenizer
from common.reward_terms import RewardTerms


class GradientReward(DecodedReward):
    """Measures what `DecodedReward` does, and the gradient of the weighted terms that have one.

    The weights are the recipe's: a pass back for each term would cost as much again as one for their sum.
    Activations exist for `reward.gradient_batch_size` pictures at a time.
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        terms: Mapping[str, RewardTerm],
        section: RewardSection,
        hands_over: bool = False,
    ):
        super().__init__(tokenizer, terms, section, hands_over=hands_over)
        self._weights = section.differentiable_weights

    def _compare(
        self, tokens_bGT: Tensor, sources: Sources, clock: StageClock
    ) -> tuple[RewardTerms, Tensor | None]:
        """The terms of each sample with `gradient_BTD`, and the pictures where a judge needs them.

        Where a term fails on some images, they are measured one by one to find which.
        """
        try:
            return self._priced(tokens_bGT, sources, clock)
        except RewardError as error:
            if len(tokens_bGT) == 1:
                return self._failed_image(tokens_bGT, str(error))
        images = [slice(image, image + 1) for image in range(len(tokens_bGT))]
        parts = [self._compare(tokens_bGT[image], sources[image], clock) for image in images]
        pictures = [decoded for _, decoded in parts if decoded is not None]
        return RewardTerms.joined([terms for terms, _ in parts]), torch.cat(pictures) if pictures else None

    def _failed_image(self, tokens_1GT: Tensor, reason: str) -> tuple[RewardTerms, Tensor | None]:
        codes_1TD = self.tokenizer.codes(tokens_1GT[:, 0]).float()
        terms = self._compared.failed(tokens_1GT.shape[1], reason, codes_1TD)
        decoded = self.tokenizer.decode(tokens_1GT[0]).float()[None] if self.needs_pictures else None
        return replace(terms, gradient_BTD=torch.full_like(codes_1TD, torch.nan)), decoded

    def _priced(
        self, tokens_bGT: Tensor, sources: Sources, clock: StageClock
    ) -> tuple[RewardTerms, Tensor | None]:
        b, G, _ = tokens_bGT.shape
        pieces = [
            self._piece(tokens_bGT[images, samples], sources[images], clock)
            for images, samples in _pieces(b, G, self._section.gradient_batch_size)
        ]
        pictures, terms, gradients = zip(*pieces, strict=True)
        gradient_bGTD = torch.cat(gradients).unflatten(0, (b, G))
        measured = {
            name: torch.cat([each[name].flatten() for each in terms]).unflatten(0, (b, G))
            for name in self._compared.terms
        }
        decoded_bGCHW = torch.cat(pictures).unflatten(0, (b, G)) if self.needs_pictures else None
        higher = self._compared.higher_is_better
        priced = RewardTerms((b, G), measured, higher_is_better=higher, gradient_BTD=gradient_bGTD.mean(dim=1))
        return priced, decoded_bGCHW

    def _piece(
        self, tokens_bgT: Tensor, sources: Sources, clock: StageClock
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Pictures [n, C, H, W] for judges, the terms [b, g], and the gradient [n, T, D]."""
        b, g, T = tokens_bgT.shape
        side = isqrt(T)
        with torch.enable_grad():
            codes_nTD = self.tokenizer.codes(tokens_bgT.flatten(0, 1)).detach().requires_grad_()
            with clock("decode"):
                decoded_nCHW = self.tokenizer.decode_codes(codes_nTD.mT.unflatten(2, (side, side)))
                decoded_bgCHW = decoded_nCHW.float().unflatten(0, (b, g))
            terms = self._compared.values(decoded_bgCHW, sources, clock)
            reward = RewardTerms((b, g), terms).rewards(self._weights).sum()
        with clock("gradient"):
            (gradient_nTD,) = torch.autograd.grad(reward, codes_nTD)
        pictures_nCHW = decoded_bgCHW.detach().flatten(0, 1) if self.needs_pictures else decoded_nCHW.new_empty(0)
        return pictures_nCHW, {name: term.detach() for name, term in terms.items()}, gradient_nTD.float()


def _pieces(num_images: int, num_samples: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Images and samples of pieces of at most `at_once` pictures, in order: whole groups, or parts of one."""
    images, samples = max(1, at_once // num_samples), min(at_once, num_samples)
    for image in range(0, num_images, images):
        for sample in range(0, num_samples, samples):
            yield slice(image, image + images), slice(sample, sample + samples)
