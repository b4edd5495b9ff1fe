"""Every method in one process: the paper's, spelled out in local.py, and those beside it.

What changes the samples has a page like it, local_free_running.py. What changes the loss has a page in the learner
(`learner/straight_through.py`, `learner/decoder_training.py`, `learner/embedding_regulariser.py`); for it the
service's own parts work here one after the other.
"""

from collections.abc import Iterator, Mapping
from typing import cast

import torch

from actors.rewards.decoded_reward import DecodedReward
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.errors import DataError
from common.models.families import PolicyModule, TokenizerModule
from common.protocols import ImageSource, ImageTokenizer
from common.schema import GroupBatch, concatenate
from common.types import StepReport
from deploy import local, local_free_running
from learner.train_step import Trainer

Reward = DecodedReward | Mapping[Kind, DecodedReward]  # one for each kind of group, where a step has several


def post_train(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    reward: Reward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
    """Train `policy`, or the decoder of `tokenizer`, in place; yields each optimizer step's report."""
    rewards = reward if isinstance(reward, Mapping) else dict.fromkeys(recipe.rollout.shares, reward)
    if "free_running" in recipe.rollout.shares:
        return local_free_running.post_train(policy, tokenizer, rewards, source, recipe, device)
    if recipe.is_paper_method:
        return local.post_train(policy, tokenizer, rewards["teacher_forced"], source, recipe, device)
    trainable = cast(TokenizerModule, tokenizer)
    return _post_train_in_parts(policy, trainable, rewards["teacher_forced"], source, recipe, device)


def _post_train_in_parts(
    policy: PolicyModule,
    tokenizer: TokenizerModule,
    reward: DecodedReward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
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
    tickets = [
        pipeline.roll_out(policy, step, samples, StageClock()) for samples in local.tickets_of(recipe, step)
    ]
    groups = [ticket.groups for ticket in tickets if ticket.groups is not None]
    if not groups:
        raise DataError(f"none of the {recipe.learner.images_per_step} images of step {step + 1} can be read")
    return concatenate(groups)
