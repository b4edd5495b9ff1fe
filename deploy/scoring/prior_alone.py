"""The yardstick of a result: the base trained with the cross-entropy alone, which needs no reward actor."""

import time
from collections.abc import Callable

import torch

from actors.rewards.build import build_reward
from actors.sources.build import build_source
from common.config.algorithm import NO_REWARD
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_policy, load_tokenizer
from deploy.local import post_train

ENDLESS = 1 << 40  # steps


class PriorAlone:
    """Trains in this process, as far as it is asked to. `policy` is what it has made of the base."""

    def __init__(self, recipe: Recipe, device: torch.device, beat: Callable[[str], None]):
        own = with_changes(prior_alone(recipe), {"learner.num_steps": ENDLESS})
        self.policy = load_policy(own, device)
        self.num_steps = 0
        self._seconds = 0.0
        self._beat = beat
        tokenizer = load_tokenizer(own, device)
        reward = build_reward(own.reward, tokenizer, perceptual=None)
        self._steps = post_train(self.policy, tokenizer, reward, build_source(own, "train"), own, device)

    def train(self, num_steps: int) -> None:
        """Up to `num_steps` in all."""
        while self.num_steps < num_steps:
            self._step()

    def train_for(self, seconds: float) -> None:
        """Up to `seconds` in all, scoring in between not counted."""
        while self._seconds < seconds:
            self._step()

    def _step(self) -> None:
        start = time.monotonic()
        next(self._steps)
        self._seconds += time.monotonic() - start
        self.num_steps += 1
        self._beat(f"yardstick: the prior alone, step {self.num_steps}")


def prior_alone(recipe: Recipe) -> Recipe:
    """The same training without a reward, and so without any credit but the default."""
    changes = {
        "learner.method": "grpo",
        "ste": {},
        "decoder": {},
        "learner.ce_weight": 1,
        "learner.prior": "ce",
        "advantage": {},
        "rollout": {},  # the codes are those of images
        "group.size": max(2, recipe.group.size),  # 1 is for credit by gradient alone
    }
    return with_changes(recipe, changes | NO_REWARD)
