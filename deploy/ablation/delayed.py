"""The algorithm of deploy/local.py on groups sampled by the policy of a fixed number of versions ago."""

from collections import deque
from collections.abc import Iterator
from copy import deepcopy

import torch

from actors.rewards.decoded_reward import DecodedReward
from common.code_credit import codebook_codes
from common.config.recipe import Recipe
from common.models.families import PolicyModule
from common.protocols import ImageSource, ImageTokenizer
from common.types import StepReport
from deploy.local import learn, roll_out_step
from learner.loss import frozen_reference
from learner.optimizer import build_optimizer


def post_train_delayed(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    reward: DecodedReward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
    delay: int,
) -> Iterator[StepReport]:
    """As `post_train`, and equal to it at delay 0. The first groups come from the initial policy."""
    learner = recipe.learner
    reference = frozen_reference(policy, learner)
    optimizer = build_optimizer(policy, learner)
    codes_VD = codebook_codes(tokenizer, device) if recipe.has_code_gradients else None
    versions = deque([deepcopy(policy)], maxlen=delay + 1)
    for step in range(learner.num_steps):
        groups = roll_out_step(versions[0], tokenizer, reward, source, recipe, device, step)
        yield learn(policy, optimizer, groups, recipe, device, step, reference, codes_VD)
        versions.append(deepcopy(policy))
