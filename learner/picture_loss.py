"""Decoded pictures against their source images, where the learner itself compares them.

Letters: N images, K pictures per image, C, H, W of a picture.
"""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from common.config.recipe import Recipe
from common.models.loading import load_perceptual_metric
from common.protocols import PerceptualMetric


class PictureLoss:
    """The terms of the recipe's reward that have a gradient, weighed as there; images in [-1, 1], not clamped."""

    def __init__(self, weights: Mapping[str, float], metric: PerceptualMetric | None):
        """`metric` may be None where no weight is `lpips`."""
        self._weights, self._metric = weights, metric

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> Self:
        """Loads the metric. Raises UserError."""
        return cls(recipe.reward.differentiable_weights, load_perceptual_metric(recipe, device))

    def terms(self, decoded_NKCHW: Tensor, pixels_NCHW: Tensor) -> dict[str, Tensor]:
        """Those that have a weight, float32 [N, K] by name, differentiable in the pictures."""
        errors_NKCHW = decoded_NKCHW - pixels_NCHW[:, None]
        terms = {}
        for name in self._weights:
            if name == "lpips":
                assert self._metric is not None, "a loss with lpips needs a perceptual metric"
                features = self._metric.reference_features(pixels_NCHW)
                terms[name] = self._metric.distance(decoded_NKCHW, features)
            else:
                each_NKCHW = errors_NKCHW.square() if name == "mse" else errors_NKCHW.abs()
                terms[name] = each_NKCHW.mean(dim=(2, 3, 4))
        return terms

    def weighed(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Σ weight · term, [N, K]: minus the reward."""
        return torch.stack([self._weights[name] * term_NK for name, term_NK in terms.items()]).sum(dim=0)
