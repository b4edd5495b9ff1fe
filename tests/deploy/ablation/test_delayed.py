"""Training on groups that an older policy sampled."""

import pytest
import torch

from actors.rewards.build import build_reward
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_policy, load_tokenizer
from common.types import StepReport
from deploy.ablation.delayed import post_train_delayed
from deploy.local_methods import post_train

CPU = torch.device("cpu")


@pytest.fixture
def long_recipe(recipe: Recipe) -> Recipe:
    return with_changes(recipe, {"learner.num_steps": 3})


def reports(recipe: Recipe, delay: int | None) -> list[StepReport]:
    policy, tokenizer = load_policy(recipe, CPU), load_tokenizer(recipe, CPU)
    source, reward = build_source(recipe, "train"), build_reward(recipe.reward, tokenizer, None)
    if delay is None:
        return list(post_train(policy, tokenizer, reward, source, recipe, CPU))
    return list(post_train_delayed(policy, tokenizer, reward, source, recipe, CPU, delay))


@pytest.mark.parametrize("changes", [{}, {"learner.prior": "kl"}], ids=["cross-entropy", "a KL prior"])
def test_without_delay_it_is_the_algorithm_itself(long_recipe: Recipe, changes: dict[str, str]) -> None:
    recipe = with_changes(long_recipe, changes)
    assert reports(recipe, 0) == reports(recipe, None)


def test_groups_are_as_old_as_the_delay_once_the_training_is(long_recipe: Recipe) -> None:
    fresh, one, two = (reports(long_recipe, delay) for delay in (0, 1, 2))
    assert all(report.kl < 1e-6 for report in fresh)
    assert one[0] == two[0] == fresh[0]
    assert one[1] == two[1]  # both have the first policy's groups
    assert one[1].kl > 1e-6
    assert one[2].kl < two[2].kl
