"""The arithmetic and memory of the recipe's models, counted on fake tensors by the code that the run uses."""

from dataclasses import dataclass
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from common.config.algorithm import GroupSection
from common.config.recipe import Recipe
from common.models.lora import trained_tensors
from common.token_distribution import TokenDistribution
from deploy.planning import judges
from deploy.planning.actor_counting import (
    ActorWork,
    actor_work,
    drawing_peak,
    drawing_work,
    sampling_rows,
)
from deploy.planning.judge_counting import NO_JUDGING, JudgeWork, judge_work
from deploy.planning.learner_counting import LearnerWork, learner_work
from deploy.planning.untrained_models import UntrainedModels, size_bytes


@dataclass(frozen=True)
class Work:
    actor: ActorWork
    learner: LearnerWork
    num_parameters: int  # of the policy
    policy_bytes: int
    frozen_bytes: int  # of an actor's tokenizer, perceptual metric and judges, unless these are apart
    drawn_bytes: int  # of one free-running picture, while its tokens are drawn
    num_trained: int  # of the policy's parameters: all, or the adapters'; or the decoder's
    trained_bytes: int  # of what travels and is kept in checkpoints
    drawing: int  # FLOPs of a free-running picture's tokens, of two rows where sampling is guided
    rank_bytes: int = 0  # of the model that a rank trains, where it is not the policy
    scoring_bytes: int = 0  # of the frozen models that a rank scores pictures with
    judges: tuple[str, ...] = ()  # what was counted for them
    judge: JudgeWork = NO_JUDGING  # where judge actors do it
    judge_bytes: int = 0  # of their models
    num_averaged: int = 0  # numbers of the decoder's moving average
    num_discriminating: int = 0  # the discriminator's parameters


def count_work(recipe: Recipe) -> Work:
    return _count(recipe.model_dump_json(exclude={"run"}))


@cache
def _count(recipe_json: str) -> Work:
    """Counting takes seconds, and the same recipe is planned again by whoever compares."""
    recipe = Recipe.model_validate_json(recipe_json)
    kinds = {kind: recipe.of_kind(kind) for kind in recipe.rollout.shares}
    shares = list(recipe.rollout.shares.values())
    with FakeTensorMode():
        models = UntrainedModels.of(recipe)
        trained = models.tokenizer if recipe.trains_decoder else models.policy
        metric, tokenizer = size_bytes(models.perceptual), size_bytes(models.tokenizer)
        judge_bytes, are_apart = judges.num_bytes(models.judges), recipe.reward.actors.count > 0
        actor = ActorWork.mean([actor_work(own, models) for own in kinds.values()], shares)
        judge = JudgeWork.mean([judge_work(own, models) for own in kinds.values()], shares)
        learner = LearnerWork.mean([learner_work(own, models) for own in kinds.values()], shares)
        if recipe.trains_decoder:
            models.tokenizer.train_decoder()
        num_trained = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        return Work(
            actor=actor,
            learner=learner,
            num_parameters=sum(parameter.numel() for parameter in models.policy.parameters()),
            policy_bytes=size_bytes(models.policy),
            frozen_bytes=tokenizer + metric + (0 if are_apart else judge_bytes),
            drawn_bytes=_drawn_bytes(recipe, models),
            num_trained=num_trained,
            trained_bytes=sum(tensor.nbytes for tensor in trained_tensors(trained).values()),
            drawing=drawing_work(recipe, models),
            rank_bytes=tokenizer if recipe.trains_decoder else 0,
            scoring_bytes=_scoring_bytes(recipe, tokenizer, metric),
            judges=tuple(models.judges.names),
            judge=judge,
            judge_bytes=judge_bytes if are_apart else 0,
            num_averaged=num_trained if recipe.decoder.ema_weight else 0,
            num_discriminating=sum(p.numel() for p in models.discriminator.parameters())
            if models.discriminator
            else 0,
        )


def _scoring_bytes(recipe: Recipe, tokenizer: int, metric: int) -> int:
    """What `learner.method` ste and decoder have beside the model that they train."""
    if not recipe.is_scored_in_learner:
        return 0
    others = bool(recipe.decoder.anchor_weight) + bool(recipe.decoder.ema_weight)
    return metric + tokenizer * (1 if recipe.learner.method == "ste" else others)


def _drawn_bytes(recipe: Recipe, models: UntrainedModels) -> int:
    rows, distribution = sampling_rows(recipe), TokenDistribution.of(recipe.sampling)
    peaks = []
    for num_pictures in (1, 2):  # both with casts of the weights, and so each in an autocast of its own
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.sampling.autocast == "bfloat16"):
            peaks.append(drawing_peak(recipe, models, num_pictures, rows, distribution)[0])
    return peaks[1] - peaks[0]


@dataclass(frozen=True)
class PublishedWork:
    """FLOPs of one source image and its G samples in the released VA-π scripts.

    They take one row per sample, and the metric's features G times.
    """

    encode: int
    policy: int  # once, as here: the behaviour pass is not repeated
    head: int
    decode: int
    perceptual: int  # the source image's features once per sample
    forward: int  # one row per sample
    backward: int
    idle_kl: int  # a reference model's forward per row, run but not used by the class-conditional script

    @property
    def actor_flops(self) -> int:
        return self.encode + self.policy + self.head + self.decode + self.perceptual

    @property
    def learner_flops(self) -> int:
        return self.forward + self.backward


def published_work(actor: ActorWork, recipe: Recipe) -> PublishedWork:
    own_size, group_size = recipe.group.size, published_group_size(recipe)
    row = actor.policy + actor.head
    return PublishedWork(
        encode=actor.encode,
        policy=actor.policy,
        head=actor.head,
        decode=actor.decode * group_size // own_size,
        perceptual=actor.perceptual * 2 * group_size // (own_size + 1),
        forward=group_size * row,
        backward=group_size * 2 * row,
        idle_kl=group_size * row,
    )


def published_group_size(recipe: Recipe) -> int:
    """The recipe's samples a group; the paper's where credit by gradient needs fewer."""
    return GroupSection().size if recipe.has_code_gradients else recipe.group.size
