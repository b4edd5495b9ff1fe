"""The reward: how well the decoded sample reconstructs the source image.

    r = -(mse_weight · mean((Î - I)²) + lpips_weight · LPIPS(Î, I) + l1_weight · mean |Î - I|)

where I is the original image, not its reconstruction; images in [-1, 1], the decoder's output unclamped. Actors
record the terms; the learner applies the weights.

Letters: B images, G samples per group, T image tokens, C, H, W channels and pixels.
"""

from contextlib import AbstractContextManager
from math import isqrt

import torch
from torch import Tensor

from common.clock import StageClock
from common.config.algorithm import RewardSection
from common.errors import RecipeError
from common.protocols import ImageTokenizer, PerceptualMetric
from common.reward_terms import RewardTerms
from common.token_grid import pool_to_grid


class PixelReward:
    def __init__(
        self,
        tokenizer: ImageTokenizer,
        perceptual: PerceptualMetric | None,
        section: RewardSection,
        has_maps: bool = False,
    ):
        """`perceptual` may be None if `section.lpips_weight` is 0. For maps it must have a `distance_map`."""
        if has_maps and perceptual is not None:
            require_maps(perceptual)
        self._tokenizer = tokenizer
        self._perceptual = perceptual
        self._section = section
        self._has_maps = has_maps

    def terms(self, sampled_tokens_BGT: Tensor, pixels_BCHW: Tensor, clock: StageClock) -> RewardTerms:
        """The terms of each sample, with maps if `has_maps`; a term of weight 0 stays 0.

        The source image's features are computed once per group, for all G samples.
        """
        B, G, T = sampled_tokens_BGT.shape
        section = self._section
        num_tokens = T if self._has_maps else None
        terms = RewardTerms.zeros(pixels_BCHW, B, G, num_tokens, has_l1=section.l1_weight > 0)
        if not (section.mse_weight or section.lpips_weight or section.l1_weight):
            return terms
        images_per_chunk = max(1, section.decode_batch_size // G)
        for start in range(0, B, images_per_chunk):
            chunk = slice(start, start + images_per_chunk)
            with clock("decode"), self._decode_dtype(pixels_BCHW.device):
                decoded_NCHW = self._tokenizer.decode(sampled_tokens_BGT[chunk].flatten(0, 1))
                decoded_bGCHW = decoded_NCHW.float().unflatten(0, (-1, G))
            with clock("decode"):
                self._compare_pixels(decoded_bGCHW, pixels_BCHW[chunk], terms[chunk])
            if self._perceptual is not None and section.lpips_weight:
                with clock("perceptual"):
                    _compare_features(self._perceptual, decoded_bGCHW, pixels_BCHW[chunk], terms[chunk])
        return terms

    def _compare_pixels(self, decoded_bGCHW: Tensor, source_bCHW: Tensor, terms: RewardTerms) -> None:
        """Fill in the squared and the absolute errors of these images."""
        difference_bGCHW = decoded_bGCHW - source_bCHW[:, None]
        if self._section.mse_weight:
            _fill(terms.mse_BG, terms.mse_map_BGT, difference_bGCHW.square())
        if terms.l1_BG is not None:
            _fill(terms.l1_BG, terms.l1_map_BGT, difference_bGCHW.abs())

    def _decode_dtype(self, device: torch.device) -> AbstractContextManager:
        in_bfloat16 = self._section.decode_dtype == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bfloat16)


def _compare_features(
    perceptual: PerceptualMetric, decoded_bGCHW: Tensor, source_bCHW: Tensor, terms: RewardTerms
) -> None:
    """Fill in the perceptual distances of these images."""
    features = perceptual.reference_features(source_bCHW)
    if terms.lpips_map_BGT is None:
        terms.lpips_BG.copy_(perceptual.distance(decoded_bGCHW, features))
        return
    grid_size = isqrt(terms.lpips_map_BGT.shape[-1])
    terms.lpips_map_BGT.copy_(perceptual.distance_map(decoded_bGCHW, features, grid_size))
    terms.lpips_BG.copy_(terms.lpips_map_BGT.mean(dim=-1))


def _fill(term_bG: Tensor, map_bGT: Tensor | None, error_bGCHW: Tensor) -> None:
    """Fill in the mean error and, if there is a map, the error of each place."""
    term_bG.copy_(error_bGCHW.mean(dim=(2, 3, 4)))
    if map_bGT is not None:
        map_bGT.copy_(pool_to_grid(error_bGCHW.mean(dim=2), isqrt(map_bGT.shape[-1])))


def require_maps(perceptual: object) -> None:
    """Raise RecipeError for a metric (or its class) that gives a distance but no map of it."""
    if not hasattr(perceptual, "distance_map"):
        name = getattr(perceptual, "__name__", type(perceptual).__name__)
        raise RecipeError(
            f"advantage.credit is token, but the perceptual metric {name} has no distance_map: use another "
            "perceptual.family, set reward.lpips_weight=0, or advantage.credit=sample"
        )
