"""The reward: what the decoded samples are worth. Actors record its terms; the learner applies the weights.

    r = -(mse · mean((Î - I)²) + lpips · LPIPS(Î, I) + l1 · mean |Î - I|) + …

against the original image, not its reconstruction; images in [-1, 1], the decoder's output not clamped. All other
terms judge the picture as a file of it would be, 8 bits a colour.

Letters: B images, G samples per image, T image tokens, C, H, W of a picture.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

from torch import Tensor

from actors.rewards.term import RewardTerm, Sources
from actors.rewards.term_set import TermSet
from common.clock import StageClock
from common.config.algorithm import COMPARING, RewardSection
from common.judged_pictures import JudgedPictures
from common.protocols import ImageTokenizer
from common.reward_terms import RewardTerms


class DecodedReward:
    def __init__(
        self,
        tokenizer: ImageTokenizer,
        terms: Mapping[str, RewardTerm],
        section: RewardSection,
        has_maps: bool = False,
        hands_over: bool = False,
    ):
        """With maps every term also says where in the picture it comes from, as far as it can.

        One that `hands_over` gives the pictures as well, for judges elsewhere.
        """
        self.tokenizer = tokenizer
        self._section = section  # of which the weights do not matter here
        grid_size = isqrt(tokenizer.num_tokens) if has_maps else None
        self._compared = TermSet({name: term for name, term in terms.items() if name in COMPARING}, grid_size)
        self._judges = TermSet({name: term for name, term in terms.items() if name not in COMPARING}, grid_size)
        self._hands_over = hands_over

    @property
    def needs_pictures(self) -> bool:
        """Whether any judge looks at them, here or elsewhere."""
        return bool(self._judges.terms) or self._hands_over

    def measure(self, sampled_tokens_BGT: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        """The terms of each sample, and the maps where there are to be any.

        An image that a term fails on is among the `failures`, by the name of the term.
        """
        B, G, _ = sampled_tokens_BGT.shape
        parts: list[RewardTerms] = []
        if self._compared.terms or self.needs_pictures:
            for images in images_at_once(B, G, self._section):
                terms, decoded_bGCHW = self._compare(sampled_tokens_BGT[images], sources[images], clock)
                parts.append(self._judge(terms, decoded_bGCHW, sources[images], clock))
        return RewardTerms.joined(parts) if parts else RewardTerms((B, G))

    def _compare(
        self, tokens_bGT: Tensor, sources: Sources, clock: StageClock
    ) -> tuple[RewardTerms, Tensor | None]:
        """The terms that compare with the image, and the pictures where a judge needs them."""
        with clock("decode"):
            decoded_NCHW = self.tokenizer.decode(tokens_bGT.flatten(0, 1))
            decoded_bGCHW = decoded_NCHW.float().unflatten(0, tokens_bGT.shape[:2])
        return self._compared.measure(decoded_bGCHW, sources, clock), decoded_bGCHW

    def _judge(
        self, terms: RewardTerms, decoded_bGCHW: Tensor | None, sources: Sources, clock: StageClock
    ) -> RewardTerms:
        if not self.needs_pictures:
            return terms
        assert decoded_bGCHW is not None, "judges need pictures"
        pictures = JudgedPictures.of(decoded_bGCHW)
        if self._judges.terms:
            terms = terms.beside(self._judges.judge(pictures, sources, clock))
        return replace(terms, pictures=pictures) if self._hands_over else terms


def images_at_once(num_images: int, num_samples: int, section: RewardSection) -> list[slice]:
    """Images whose samples are decoded, compared and judged together, a piece each."""
    size = max(1, section.decode_batch_size // num_samples)
    return [slice(start, start + size) for start in range(0, num_images, size)]
