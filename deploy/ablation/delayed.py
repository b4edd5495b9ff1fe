"""The algorithm of deploy/local.py on groups sampled by the policy of a fixed number of versions ago."""

from collections import deque
from collections.abc import Iterator
from copy import deepcopy

import torch

from common.config.recipe import Recipe
from common.models.families import PolicyModule
from common.protocols import ImageSource, ImageTokenizer, PerceptualMetric
from common.types import StepReport
from deploy.local import learn, roll_out
from learner.optimizer import build_optimizer


def post_train_delayed(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    perceptual: PerceptualMetric | None,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
    delay: int,
) -> Iterator[StepReport]:
    """As `post_train`, and equal to it at delay 0. The first groups come from the initial policy."""
    learner, per_ticket = recipe.learner, recipe.actors.images_per_ticket
    optimizer = build_optimizer(policy, learner)
    versions = deque([deepcopy(policy)], maxlen=delay + 1)
    for step in range(learner.num_steps):
        first = step * learner.images_per_step
        starts = range(first, first + learner.images_per_step, per_ticket)
        groups = [
            roll_out(versions[0], tokenizer, perceptual, source, recipe, device, range(start, start + per_ticket))
            for start in starts
        ]
        yield learn(policy, optimizer, groups, recipe, device, step)
        versions.append(deepcopy(policy))
