"""The whole algorithm in one process, on a GPU that is not there: the losses and the weights of a CPU."""

import numpy as np
import pytest

from actors.rewards.build import build_reward
from common.config.algorithm import NO_REWARD
from common.config.recipe import Recipe
from common.machine import prepare_device
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.types import StepReport
from common.weights.snapshot import as_array
from deploy.local_methods import post_train
from tests.fake_cuda.gpu import fake_cuda
from tests.on_a_gpu_that_is_not_there.comparison import WEIGHT_TOLERANCE, assert_close
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.runs import Arrays, RandomPictures

CASES = {
    "the paper's": {},
    "credit by gradient, a KL prior": {"advantage.credit": "gradient", "learner.prior": "kl"},
    "the prior alone": NO_REWARD,
}


@pytest.mark.parametrize("name", CASES)
def test_local_gives_the_same_on_both(recipe_of: Recipes, name: str) -> None:
    changes = {"learner.images_per_step": 4, **CASES[name]}
    here, weights = trained(recipe_of(changes))
    with fake_cuda():
        there, weights_there = trained(recipe_of(changes, "cuda"))
    for one, other in zip(here, there, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4, abs=1e-5)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
        assert np.isfinite(one.entropy)
    assert_close(weights, weights_there, rtol=0, atol=WEIGHT_TOLERANCE)


def trained(recipe: Recipe) -> tuple[list[StepReport], Arrays]:
    device = prepare_device(recipe.compute)
    tokenizer, metric = load_tokenizer(recipe, device), load_perceptual_metric(recipe, device)
    policy = load_policy(recipe, device)
    reward = build_reward(recipe.reward, tokenizer, metric, recipe.advantage.credit)
    reports = list(post_train(policy, tokenizer, reward, RandomPictures(recipe), recipe, device))
    return reports, {name: as_array(tensor) for name, tensor in policy.state_dict().items()}
