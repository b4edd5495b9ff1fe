"""The methods beside GRPO in one process: the service's own parts, one after the other.

`deploy/local.py` spells the paper's algorithm out. These have a page of their own in the learner
(`learner/straight_through.py`), and what is left is to carry groups there.
"""

from collections.abc import Iterator

import torch

from actors.rewards.decoded_reward import DecodedReward
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.families import PolicyModule, TokenizerModule
from common.protocols import ImageSource
from common.schema import GroupBatch, concatenate
from common.types import StepReport
from learner.train_step import Trainer


def post_train_in_parts(
    policy: PolicyModule,
    tokenizer: TokenizerModule,
    reward: DecodedReward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
    """As `post_train`, for a `learner.method` whose pictures the learner scores.

    It trains `policy`, or the decoder of `tokenizer`, in place.
    """
    pipeline = RolloutPipeline(recipe, source, tokenizer, reward, device)
    trainer = Trainer(trained_of(recipe, policy, tokenizer), recipe, device)
    for step in range(recipe.learner.num_steps):
        groups = _rolled_out(pipeline, policy, recipe, step)
        sums, norm = trainer.train(groups, StageClock())
        yield sums.report(trainer.step, norm, {})


def trained_of(recipe: Recipe, policy: PolicyModule, tokenizer: TokenizerModule) -> PolicyModule | TokenizerModule:
    """The one of the two that the recipe trains, ready for it."""
    if not recipe.trains_decoder:
        return policy
    tokenizer.train_decoder()
    return tokenizer


def _rolled_out(pipeline: RolloutPipeline, policy: PolicyModule, recipe: Recipe, step: int) -> GroupBatch:
    """The groups of a step's tickets, without those of images that cannot be read."""
    size, num_images = recipe.actors.images_per_ticket, recipe.learner.images_per_step
    starts = range(step * num_images, (step + 1) * num_images, size)
    tickets = [pipeline.roll_out(policy, step, range(start, start + size), StageClock()) for start in starts]
    groups = [ticket.groups for ticket in tickets if ticket.groups is not None]
    if not groups:
        raise DataError(f"none of the {num_images} images of step {step + 1} can be read")
    return concatenate(groups)
