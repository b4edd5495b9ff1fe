"""The reward: how well the decoded sample reconstructs the source image.

    r = -(mse_weight · mean((Î - I)²) + lpips_weight · LPIPS(Î, I))

against the original image, not its reconstruction; images in [-1, 1], the decoder's output not clamped.
Actors record the two terms; the learner applies the weights.

Letters: B images, G samples a group, T image tokens, C, H, W channels and pixels.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from common.clock import StageClock
from common.config.algorithm import RewardSection
from common.protocols import ImageTokenizer, PerceptualMetric


class PixelReward:
    def __init__(self, tokenizer: ImageTokenizer, perceptual: PerceptualMetric | None, section: RewardSection):
        """`perceptual` may be None where `section.lpips_weight` is 0."""
        self._tokenizer = tokenizer
        self._perceptual = perceptual
        self._section = section

    def terms(self, sampled_tokens_BGT: Tensor, pixels_BCHW: Tensor, clock: StageClock) -> tuple[Tensor, Tensor]:
        """Mean squared error and perceptual distance, float32 [B, G] each; a term of weight 0 is left 0.

        The source image's features are computed once a group and serve its G samples.
        """
        B, G, _ = sampled_tokens_BGT.shape
        mse_BG, lpips_BG = pixels_BCHW.new_zeros(B, G), pixels_BCHW.new_zeros(B, G)
        if not (self._section.mse_weight or self._section.lpips_weight):
            return mse_BG, lpips_BG
        images_per_chunk = max(1, self._section.decode_batch_size // G)
        for start in range(0, B, images_per_chunk):
            chunk = slice(start, start + images_per_chunk)
            source_bCHW = pixels_BCHW[chunk]
            with clock("decode"), self._decode_dtype(pixels_BCHW.device):
                decoded_NCHW = self._tokenizer.decode(sampled_tokens_BGT[chunk].flatten(0, 1))
                decoded_bGCHW = decoded_NCHW.float().unflatten(0, (-1, G))
            if self._section.mse_weight:
                with clock("decode"):
                    mse_BG[chunk] = (decoded_bGCHW - source_bCHW[:, None]).square().mean(dim=(2, 3, 4))
            if self._perceptual is not None and self._section.lpips_weight:
                with clock("perceptual"):
                    features = self._perceptual.reference_features(source_bCHW)
                    lpips_BG[chunk] = self._perceptual.distance(decoded_bGCHW, features)
        return mse_BG, lpips_BG

    def _decode_dtype(self, device: torch.device) -> AbstractContextManager:
        in_bfloat16 = self._section.decode_dtype == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bfloat16)
