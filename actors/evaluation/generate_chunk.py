"""Free-running pictures of some sample indices: work for any actor.

The pictures depend on the chunk and the policy alone, so not on the number of actors.

Letters: N pictures, T image tokens, L valid caption tokens, D width of a caption feature.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from actors.evaluation.conditions import caption_condition, class_labels, held_out_condition
from actors.evaluation.free_running import sample_tokens
from actors.evaluation.models import EvaluationModels
from actors.image_batch import to_uint8
from common.protocols import Condition, Policy

NO_CLASS = -1


@dataclass(frozen=True)
class GeneratedPictures:
    sample_index_N: np.ndarray  # int64
    label_N: np.ndarray  # int64, as `sampling.classes` says; NO_CLASS where captions are the condition
    pixels_NHWC: np.ndarray  # uint8


@dataclass(frozen=True)
class GenerateChunk:
    """A text-conditional policy without `captions` takes those of the held-out images, in turn."""

    sample_indices: tuple[int, ...]
    seed: int
    temperature: float
    captions: tuple[np.ndarray, ...] | None = None  # N features of prompts, float16 [L, D] each
    output_size: int | None = None  # pixels; None leaves the pictures as they are decoded

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> GeneratedPictures:
        sampling = models.recipe.sampling.model_copy(update={"temperature": self.temperature})
        label_N, condition = self._condition(models)
        condition = {name: column.to(models.device) for name, column in condition.items()}
        tokens_NT = sample_tokens(policy, condition, sampling, self.seed, self.sample_indices)
        pixels_NCHW = models.tokenizer.decode(tokens_NT)
        if self.output_size not in (None, pixels_NCHW.shape[-1]):
            pixels_NCHW = F.interpolate(pixels_NCHW.float(), self.output_size, mode="bicubic")
        return GeneratedPictures(np.array(self.sample_indices), label_N, to_uint8(pixels_NCHW))

    def _condition(self, models: EvaluationModels) -> tuple[np.ndarray, Condition]:
        """Labels int64 [N], and the columns that the policy is given."""
        recipe = models.recipe
        if recipe.policy.conditioning == "class":
            label_N = class_labels(
                recipe.sampling.classes, recipe.policy.num_classes, self.seed, self.sample_indices
            )
            return label_N, {"label": torch.from_numpy(label_N)}
        label_N = np.full(len(self.sample_indices), NO_CLASS)
        if self.captions is None:
            return label_N, held_out_condition(models.held_out, self.sample_indices)
        return label_N, caption_condition(self.captions, recipe.policy.caption_length)
