"""A rank that also rolls out, with the policy that it trains, on a GPU that is not there."""

import numpy as np
import pytest
import torch

from common.clock import StageClock
from common.config.recipe import Recipe
from common.models.lora import trained_tensors
from common.schema import from_table
from common.types import WorkTicket
from common.weights.snapshot import as_array
from deploy.service.colocated_actor import ColocatedActor
from learner.step_sums import StepSums
from tests.fake_cuda.gpu import fake_cuda
from tests.on_a_gpu_that_is_not_there.comparison import WEIGHT_TOLERANCE, assert_close, assert_same_sums
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.runs import Arrays
from tests.on_a_gpu_that_is_not_there.variants import BFLOAT16

COLOCATED = {"placement": "colocated", "actors.count": 0, "buffer.max_staleness": 0}
CASES = {
    "the paper's": {},
    "credit by gradient": {"advantage.credit": "gradient"},
    "the decoder": {"learner.method": "decoder", "learner.lr": 1e-6},
    "adapters": {"learner.lora": {"rank": 3}, "learner.lr": 1e-4},
}


@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_rolls_out_as_on_a_cpu(recipe_of: Recipes, name: str) -> None:
    here, weights = two_steps(recipe_of(COLOCATED | CASES[name]))
    with fake_cuda():
        there, weights_there = two_steps(recipe_of(COLOCATED | CASES[name], "cuda"))
    for one, other in zip(here, there, strict=True):
        assert_same_sums(one, other)
    assert_close(weights, weights_there, rtol=0, atol=WEIGHT_TOLERANCE)


def test_in_bfloat16_each_step_learns_from_the_very_policy_that_rolled_out(recipe_of: Recipes) -> None:
    with fake_cuda():
        steps, weights = two_steps(recipe_of(COLOCATED | BFLOAT16, "cuda"))
    for step in steps:
        assert step.sums["kl"] == pytest.approx(0, abs=1e-9)
        assert step.sums["clip_fraction"] == 0
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}  # trained in full precision


def two_steps(recipe: Recipe) -> tuple[list[StepSums], Arrays]:
    """Each on groups of its own, which the policy before it rolled out."""
    rank, sums = ColocatedActor(recipe), []
    for version in range(2):
        samples = range(version * recipe.actors.images_per_ticket, (version + 1) * recipe.actors.images_per_ticket)
        receipt, table = rank.roll_out(WorkTicket(version, tuple(samples)), version, [])
        assert receipt.policy_version == version
        assert table is not None
        step, norm = rank._trainer.train(from_table(table), StageClock(torch.device(recipe.compute.device)))
        assert np.isfinite(norm)
        sums.append(step)
    trained = trained_tensors(rank._trainer.model)
    return sums, {name: as_array(tensor).copy() for name, tensor in trained.items()}
