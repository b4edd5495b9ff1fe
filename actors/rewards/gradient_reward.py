"""The reward with its gradient at the sampled codes: one pass forth through the decoder, and one back.

Letters: B images, G samples per image, n pictures of a piece, T image tokens, D numbers of a code, C, H, W of a
picture.
"""

from collections.abc import Iterator, Mapping
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

    def __init__(self, tokenizer: ImageTokenizer, terms: Mapping[str, RewardTerm], section: RewardSection):
        self._weights = section.differentiable_weights
        self._priced = {name: term for name, term in terms.items() if name in self._weights}
        others = {name: term for name, term in terms.items() if name not in self._weights}
        super().__init__(tokenizer, others, section)

    def measure(self, sampled_tokens_BGT: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        """The terms of each sample, and `gradient_BTD`."""
        B, G, _ = sampled_tokens_BGT.shape
        images_per_chunk = max(1, self._section.decode_batch_size // G)
        parts = []
        for start in range(0, B, images_per_chunk):
            chunk = slice(start, start + images_per_chunk)
            parts.append(self._chunk(sampled_tokens_BGT[chunk], sources[chunk], clock))
        return RewardTerms.joined(parts)

    def _chunk(self, tokens_bGT: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        """Where a term fails on some images, they are measured one by one to find which."""
        try:
            return self._priced_and_measured(tokens_bGT, sources, clock)
        except RewardError as error:
            if len(tokens_bGT) == 1:
                return self._failed_image(tokens_bGT, str(error))
        images = [slice(image, image + 1) for image in range(len(tokens_bGT))]
        return RewardTerms.joined([self._chunk(tokens_bGT[image], sources[image], clock) for image in images])

    def _failed_image(self, tokens_1GT: Tensor, reason: str) -> RewardTerms:
        gradient_1TD = torch.full_like(self.tokenizer.codes(tokens_1GT[:, 0]).float(), float("nan"))
        nothing_1G = torch.full(tokens_1GT.shape[:2], float("nan"), device=tokens_1GT.device)
        terms = dict.fromkeys((*self._priced, *self._terms), nothing_1G)
        shape = (1, tokens_1GT.shape[1])
        missed = self._none_missed(nothing_1G)
        return RewardTerms(shape, terms, {}, self._higher_is_better, {0: reason}, missed, gradient_1TD)

    def _priced_and_measured(self, tokens_bGT: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        b, G, _ = tokens_bGT.shape
        pieces = [
            self._piece(tokens_bGT[images, samples], sources[images], clock)
            for images, samples in _pieces(b, G, self._section.gradient_batch_size)
        ]
        pictures, terms, gradients = zip(*pieces, strict=True)
        gradient_bGTD = torch.cat(gradients).unflatten(0, (b, G))
        measured = {
            name: torch.cat([each[name].flatten() for each in terms]).unflatten(0, (b, G)) for name in self._priced
        }
        others = RewardTerms((b, G))
        if self._terms:
            decoded_bGCHW = torch.cat(pictures).unflatten(0, (b, G))
            others = self._measured(decoded_bGCHW, sources, None, clock)
        return RewardTerms(
            (b, G),
            measured | dict(others.terms),
            higher_is_better=self._higher_is_better,
            failures=others.failures,
            missed=others.missed,
            gradient_BTD=gradient_bGTD.mean(dim=1),
        )

    def _piece(
        self, tokens_bgT: Tensor, sources: Sources, clock: StageClock
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Pictures [n, C, H, W] for terms without a gradient, the others [b, g], and the gradient [n, T, D]."""
        b, g, T = tokens_bgT.shape
        side = isqrt(T)
        with torch.enable_grad():
            codes_nTD = self.tokenizer.codes(tokens_bgT.flatten(0, 1)).detach().requires_grad_()
            with clock("decode"):
                decoded_nCHW = self.tokenizer.decode_codes(codes_nTD.mT.unflatten(2, (side, side)))
                decoded_bgCHW = decoded_nCHW.float().unflatten(0, (b, g))
            terms = self._terms_of(self._priced, decoded_bgCHW, sources, clock)
            reward = RewardTerms((b, g), terms).rewards(self._weights).sum()
        with clock("gradient"):
            (gradient_nTD,) = torch.autograd.grad(reward, codes_nTD)
        pictures_nCHW = decoded_bgCHW.detach().flatten(0, 1) if self._terms else decoded_nCHW.new_empty(0)
        return pictures_nCHW, {name: term.detach() for name, term in terms.items()}, gradient_nTD.float()


def _pieces(num_images: int, num_samples: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Images and samples of pieces of at most `at_once` pictures, in order: whole groups, or parts of one."""
    images, samples = max(1, at_once // num_samples), min(at_once, num_samples)
    for image in range(0, num_images, images):
        for sample in range(0, num_samples, samples):
            yield slice(image, image + images), slice(sample, sample + samples)
