"""Evaluation in chunks that any actor can do.

A chunk's result depends on the chunk and the policy alone, so scores do not depend on the number of actors.

Letters: N pictures, B held-out images, G samples a group.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from actors.evaluation.free_running import sample_tokens
from actors.image_batch import to_uint8
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.table import build_source
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.protocols import ImageSource, ImageTokenizer, PerceptualMetric, Policy


@dataclass(frozen=True)
class EvaluationModels:
    """What chunks are done with, beside the policy."""

    recipe: Recipe
    tokenizer: ImageTokenizer
    perceptual: PerceptualMetric | None
    device: torch.device

    @cached_property
    def held_out(self) -> ImageSource:
        return build_source(self.recipe, "held_out")


@dataclass(frozen=True)
class GeneratedPictures:
    sample_index_N: np.ndarray  # int64
    label_N: np.ndarray  # int64; sample i is of class i modulo the number of classes
    pixels_NHWC: np.ndarray  # uint8


@dataclass(frozen=True)
class GenerateChunk:
    """Free-running pictures of some sample indices."""

    sample_indices: tuple[int, ...]
    seed: int
    temperature: float

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> GeneratedPictures:
        recipe = models.recipe
        sampling = recipe.sampling.model_copy(update={"temperature": self.temperature})
        label_N = np.array(self.sample_indices) % recipe.policy.num_classes
        condition = {"label": torch.from_numpy(label_N).to(models.device)}
        tokens_NT = sample_tokens(policy, condition, sampling, self.seed, self.sample_indices)
        return GeneratedPictures(
            np.array(self.sample_indices), label_N, to_uint8(models.tokenizer.decode(tokens_NT))
        )


@dataclass(frozen=True)
class HeldOutRewards:
    """Facts; the caller weighs them."""

    mse_BG: np.ndarray  # float32
    lpips_BG: np.ndarray  # float32


@dataclass(frozen=True)
class HeldOutChunk:
    """Teacher-forced groups of some held-out images, their noise and samples drawn from `seed`."""

    sample_indices: tuple[int, ...]
    seed: int

    def run(self, policy: Policy, models: EvaluationModels) -> HeldOutRewards:
        recipe = with_changes(models.recipe, {"seed": self.seed})
        pipeline = RolloutPipeline(recipe, models.held_out, models.tokenizer, models.perceptual, models.device)
        groups = pipeline.roll_out(policy, 0, self.sample_indices, StageClock()).groups
        if groups is None:
            raise DataError(f"none of the held-out samples {self.sample_indices} can be read")
        return HeldOutRewards(groups.reward_mse_BG, groups.reward_lpips_BG)


EvaluationChunk = GenerateChunk | HeldOutChunk
