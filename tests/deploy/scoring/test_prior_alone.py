"""The yardstick of the prior alone: a recipe of its own, trained for as many steps or as long."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from actors.rewards.build import build_reward
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_policy, load_tokenizer
from deploy.local import post_train
from deploy.scoring.prior_alone import PriorAlone, prior_alone

CPU = torch.device("cpu")
SmallRun = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 4),
        ({"advantage.credit": "token", "advantage.mix": 0.5}, 4),
        (
            {
                "advantage.credit": "gradient",
                "advantage.scale": "place",
                "advantage.curvature": 1,
                "group.size": 1,
            },
            2,
        ),
    ],
)
def test_the_prior_alone_is_trained_under_any_credit_of_the_run(
    tiny_recipe: Recipe, changes: dict[str, Any], size: int
) -> None:
    recipe = prior_alone(with_changes(tiny_recipe, changes))
    assert (recipe.reward.weights, recipe.advantage.credit, recipe.group.size) == ({}, "sample", size)


def test_the_prior_alone_goes_on_where_it_stood_and_is_the_plain_training(small_run: SmallRun) -> None:
    recipe = small_run("run", {"learner.num_steps": 2})
    beats: list[str] = []
    prior = PriorAlone(recipe, CPU, beats.append)
    prior.train(1)
    prior.train(2)
    prior.train_for(0)
    assert prior.num_steps == 2
    prior.train_for(1e-9)  # they took longer
    assert prior.num_steps == 2
    own = prior_alone(recipe)
    policy, tokenizer = load_policy(own, CPU), load_tokenizer(own, CPU)
    reward = build_reward(own.reward, tokenizer, perceptual=None)
    assert len(list(post_train(policy, tokenizer, reward, build_source(own, "train"), own, CPU))) == 2
    for name, weight in policy.state_dict().items():
        assert prior.policy.state_dict()[name].equal(weight), name
    assert beats == [f"yardstick: the prior alone, step {step}" for step in (1, 2)]


def test_time_is_filled_with_steps(small_run: SmallRun) -> None:
    prior = PriorAlone(small_run("run"), CPU, lambda _: None)
    prior.train_for(0.2)
    assert prior.num_steps >= 1
    prior.train(prior.num_steps - 1)  # no step too many
    before = prior.num_steps
    prior.train_for(0.2)
    assert prior.num_steps == before
