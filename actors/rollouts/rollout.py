"""What a rollout is: from source images to samples with the log-probabilities that they were drawn with.

Letters: B images, G samples per group, T image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

from actors.context_noise import ContextNoise
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.service import ComputeSection
from common.protocols import Condition, Policy
from common.token_distribution import TokenDistribution


@dataclass(frozen=True)
class RolloutSettings:
    """Everything random about a sample comes from `seed` and its index."""

    seed: int
    group_size: int  # 0: no samples are drawn, and the policy is not asked for any
    distribution: TokenDistribution
    compute: ComputeSection
    # of teacher-forced groups
    context: ContextNoise
    condition_drop: float
    keeps_pixels: bool  # groups have the images themselves, for the learner to score
    # of free-running ones
    guidance_scale: float  # that they are drawn at
    learned_guidance_scale: float  # that their log-probabilities are of

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Those of a training run."""
        return cls(
            seed=recipe.seed,
            group_size=recipe.num_samples_drawn,
            distribution=TokenDistribution.of(recipe.group),
            compute=recipe.compute,
            context=ContextNoise.of(recipe),
            condition_drop=recipe.actor_condition_drop,
            keeps_pixels=recipe.is_scored_in_learner,
            guidance_scale=recipe.rollout.guidance_scale,
            learned_guidance_scale=recipe.learned_guidance_scale,
        )


@dataclass(frozen=True)
class Draws:
    """The samples of B groups."""

    condition: Condition  # as the policy was given it
    context_BT: Tensor
    """Int64 [B, T-1], or [B, T] if whole; the teacher-forcing input. [B, 0]: samples are their own contexts."""
    targets_BT: Tensor  # int64; then [B, 0] as well
    samples_BGT: Tensor  # int64
    logprobs_BGT: Tensor  # float32, of the policy that drew
    hidden_BTD: Tensor | None = None
    """What its head makes logits of. None where no samples were drawn, or they are their own contexts."""


class Rollout(Protocol):
    """One kind of making groups; its name is a `rollout.kind`."""

    def draw(
        self,
        policy: Policy,
        pixels_BCHW: Tensor,
        condition: Condition,
        sample_indices: Sequence[int],
        clock: StageClock,
    ) -> Draws:
        """The samples of these images, which are the run's `sample_indices`."""
