"""Teacher-forced scores of some held-out images: work for any actor.

The scores depend on the chunk and the policy alone, so not on the number of actors.

Letters: B held-out images, G samples a group.
"""

from dataclasses import dataclass

import numpy as np

from actors.evaluation.models import EvaluationModels
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.load import with_changes
from common.errors import DataError
from common.protocols import Policy


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
