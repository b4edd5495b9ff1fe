"""What evaluation is done with, beside the policy."""

from dataclasses import dataclass
from functools import cached_property

import torch

from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.protocols import ImageSource, ImageTokenizer, PerceptualMetric


@dataclass(frozen=True)
class EvaluationModels:
    recipe: Recipe
    tokenizer: ImageTokenizer
    perceptual: PerceptualMetric | None
    device: torch.device

    @cached_property
    def held_out(self) -> ImageSource:
        return build_source(self.recipe, "held_out")
