"""Classifier-free guidance: how strongly each token is pulled towards its condition.

Letters: N pictures, T image tokens, V codebook entries.
"""

from math import cos, pi

from torch import Tensor

from common.config.sampling import SamplingSection


def guidance_scales(sampling: SamplingSection, num_tokens: int) -> list[float]:
    """The scale s of each of T tokens; 1 is no guidance.

    power_cosine: 1 + (s - 1) · (1 - cos(π (t / T)^p)) / 2 at token t = 0 … T-1, as MDTv2 (arXiv 2303.14389) has
    it over denoising steps. Early tokens are then drawn freely, for diversity, and late ones follow closely.
    """
    scale = sampling.guidance_scale
    match sampling.guidance_schedule:
        case "power_cosine":
            places = [(token / num_tokens) ** sampling.guidance_power for token in range(num_tokens)]
            return [1 + (scale - 1) * (1 - cos(pi * place)) / 2 for place in places]
        case "interval":
            stop = num_tokens if sampling.guidance_stop is None else sampling.guidance_stop
            guided = range(sampling.guidance_start, stop)
            return [scale if token in guided else 1.0 for token in range(num_tokens)]
        case "constant":
            return [scale] * num_tokens


def guided(with_NV: Tensor, without_NV: Tensor, scale: float) -> Tensor:
    """u + s · (c - u) of the logits c with the condition and u without; c itself at s = 1."""
    return with_NV if scale == 1 else without_NV + scale * (with_NV - without_NV)
