"""Free-running pictures of some sample indices: work for any actor.

The pictures depend on the chunk and the policy alone, so not on the number of actors.

Letters: N pictures, T image tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch

from actors.evaluation.free_running import sample_tokens
from actors.evaluation.models import EvaluationModels
from actors.image_batch import to_uint8
from common.protocols import Policy


@dataclass(frozen=True)
class GeneratedPictures:
    sample_index_N: np.ndarray  # int64
    label_N: np.ndarray  # int64; sample i is of class i modulo the number of classes
    pixels_NHWC: np.ndarray  # uint8


@dataclass(frozen=True)
class GenerateChunk:
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
