"""The results of a GPU are those of a CPU, whatever the recipe asks for."""

import pytest

from tests.on_a_gpu_that_is_not_there.comparison import assert_close, assert_equal, assert_same_draws, cosine
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.runs import run_everything, run_on_a_gpu
from tests.on_a_gpu_that_is_not_there.variants import ROUGH, VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_in_float32_a_gpu_computes_what_a_cpu_does(recipe_of: Recipes, name: str) -> None:
    here, there = run_everything(recipe_of(VARIANTS[name])), run_on_a_gpu(recipe_of(VARIANTS[name], "cuda"))
    assert_equal(here, there)


@pytest.mark.parametrize("name", ROUGH)
def test_in_bfloat16_a_gpu_moves_the_weights_where_a_cpu_does(recipe_of: Recipes, name: str) -> None:
    here, there = run_everything(recipe_of(ROUGH[name])), run_on_a_gpu(recipe_of(ROUGH[name], "cuda"))
    assert_same_draws(here, there, share=0.99)
    assert_close(here.groups.reward_terms, there.groups.reward_terms, rtol=0.01, atol=0.01)
    for one, other in zip(here.steps, there.steps, strict=True):
        assert one.sums["loss"] == pytest.approx(other.sums["loss"], rel=0.02)
    assert cosine(here.moments, there.moments) > (0.9 if "published" in name else 0.99)
