"""What the chunks of an evaluation need besides the policy. Letters: N pictures, T image tokens, H, W pixels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.evaluation.features import Features, build_features
from actors.image_batch import to_uint8
from actors.judging import Judging
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.pixel_errors import SquaredError
from actors.rewards.table import build_terms
from actors.rewards.term import RewardTerm
from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.protocols import ImageSource, ImageTokenizer, PerceptualMetric


@dataclass(frozen=True)
class EvaluationModels:
    """The recipe and the models; each that is not given is loaded when it is first needed."""

    recipe: Recipe
    tokenizer: ImageTokenizer
    perceptual: PerceptualMetric | None  # None where nothing is scored by it
    device: torch.device
    judges_apart: bool = False  # other processes judge pictures: no judge is loaded here

    @cached_property
    def features(self) -> Features:
        return build_features(self.recipe, self.device)

    @cached_property
    def train(self) -> ImageSource:
        return build_source(self.recipe, "train")

    @cached_property
    def held_out(self) -> ImageSource:
        return build_source(self.recipe, "held_out")

    @cached_property
    def comparing_terms(self) -> dict[str, RewardTerm]:
        """Those of the reward that compare with the image."""
        return build_terms(self.recipe.reward.comparing(), self.perceptual)

    @cached_property
    def judging(self) -> Judging:
        assert not self.judges_apart, "no judge is to be loaded here"
        return Judging(self.recipe, self.device)

    @cached_property
    def held_out_reward(self) -> DecodedReward:
        """What compares with the image, the squared error in any case; without maps, and decoded in float32.

        It hands the pictures over where the reward has judges.
        """
        section = self.recipe.reward
        terms = {"mse": SquaredError()} | self.comparing_terms
        return DecodedReward(self.tokenizer, terms, section, hands_over=bool(section.judged_weights))

    def tokens(self, tokens: np.ndarray) -> Tensor:
        """int64, on the device."""
        return torch.from_numpy(tokens).long().to(self.device)

    def decoded(self, tokens_NT: Tensor, output_size: int | None = None) -> np.ndarray:
        """Pictures uint8 [N, H, W, 3], decoded a few at a time; an `output_size` of None is the decoder's own."""
        parts = []
        for part_NT in tokens_NT.split(self.recipe.reward.decode_batch_size):
            pixels_NCHW = self.tokenizer.decode(part_NT)
            if output_size not in (None, pixels_NCHW.shape[-1]):
                pixels_NCHW = F.interpolate(pixels_NCHW.float(), output_size, mode="bicubic")
            parts.append(to_uint8(pixels_NCHW))
        return np.concatenate(parts)
