"""A slip that passes on a CPU fails on the GPU that is not there, or breaks its budget."""

import pytest

from common.config.recipe import Recipe
from tests.fake_cuda.gpu import fake_cuda
from tests.on_a_gpu_that_is_not_there.budgets import check_budgets
from tests.on_a_gpu_that_is_not_there.comparison import assert_equal
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.mutants import MUTANTS
from tests.on_a_gpu_that_is_not_there.runs import Actor, Outcome, Rank, run_everything, run_on_a_gpu

SOUND: dict[str, Outcome] = {}  # of the code without a slip, on a CPU, by a recipe's changes


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mutant = MUTANTS[name]
    key = repr(mutant.changes)
    if key not in SOUND:
        SOUND[key] = run_everything(recipe_of(mutant.changes))
    mutant.apply(monkeypatch)
    assert_equal(SOUND[key], run_everything(recipe_of(mutant.changes)))
    with pytest.raises((RuntimeError, TypeError, AssertionError), match=mutant.caught_by):
        examine(recipe_of(mutant.changes, "cuda"), has_budgets=not mutant.changes, sound=SOUND[key])


def examine(recipe: Recipe, has_budgets: bool, sound: Outcome) -> None:
    if has_budgets:  # which are those of the recipe without changes
        with fake_cuda() as counts:
            check_budgets(Actor(recipe), Rank(recipe), counts)
    assert_equal(sound, run_on_a_gpu(recipe))
