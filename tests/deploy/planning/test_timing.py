"""Seconds, bottleneck and GPU-hours, by hand: rates of 1 TFLOP a second, weights that take 1/3 s."""

from dataclasses import replace
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.planning.counting import Work, published_work
from deploy.planning.gpus import GPUS, Utilisation
from deploy.planning.timing import Rates, Timing, estimate, rates

TERA = 1e12
WEIGHTS = 1 / 3  # 1 GB at 3 GB/s
OPTIMIZER = 0.1  # 250 M parameters of 40 bytes at 0.1 TB/s
GPU = replace(GPUS["a100"], bytes_per_second=0.1e12 / 0.7)


def timing(recipe: Recipe, work: Work, changes: dict[str, Any]) -> Timing:
    """Of 100 steps of 128 images in tickets of 4: an actor takes 6 s an image, a rank 3."""
    shape = {"learner.num_steps": 100, "learner.images_per_step": 128, "actors.images_per_ticket": 4}
    recipe = with_changes(recipe, shape | {"buffer.max_staleness": 1} | changes)
    rate = Rates(transformer=TERA, encode=TERA, decode=TERA, perceptual=TERA)
    return estimate(recipe, work, published_work(work.actor, recipe), GPU, rate)


def test_actors_that_are_the_bottleneck_set_the_step(tiny_recipe: Recipe, work: Work) -> None:
    step = timing(tiny_recipe, work, {"actors.count": 2}).recipe
    assert step.actors_seconds == pytest.approx(128 * 6 / 2 + WEIGHTS)
    assert step.learner_seconds == pytest.approx(128 * 3 / 1 + OPTIMIZER + WEIGHTS)
    assert step.step_seconds == step.learner_seconds
    slower = timing(tiny_recipe, work, {"actors.count": 1}).recipe
    assert slower.step_seconds == pytest.approx(768 + WEIGHTS)
    assert slower.run_seconds == pytest.approx(100 * (768 + WEIGHTS))
    assert slower.gpu_hours == pytest.approx(2 * 100 * (768 + WEIGHTS) / 3600)


def test_the_fewest_actors_that_keep_up_saturate_the_learner(tiny_recipe: Recipe, work: Work) -> None:
    one_rank = timing(tiny_recipe, work, {})
    assert one_rank.actors_per_learner == pytest.approx(768 / 384.1)
    assert one_rank.saturating.num_actors == 2
    four_ranks = timing(tiny_recipe, work, {"learner.num_ranks": 4})
    assert four_ranks.saturating.num_actors == 8
    assert four_ranks.saturating.gpu_hours == pytest.approx(12 * 100 * (96 + OPTIMIZER + WEIGHTS) / 3600)


def test_on_policy_actors_and_learner_take_turns_and_tickets_are_whole(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"buffer.max_staleness": 0, "actors.count": 5})
    assert of.takes_turns
    assert of.recipe.actors_seconds == pytest.approx(7 * 4 * 6 + WEIGHTS)  # 32 tickets: two actors do 7 of them
    assert of.recipe.step_seconds == of.recipe.actors_seconds + of.recipe.learner_seconds


def test_more_actors_than_tickets_are_of_no_use(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"actors.images_per_ticket": 64, "learner.num_ranks": 128, "actors.count": 5})
    assert of.most_useful_actors == 2
    assert of.saturating.num_actors == 2
    assert of.recipe.actors_seconds == pytest.approx(64 * 6 + WEIGHTS)
    assert of.saturating.actors_seconds > of.saturating.learner_seconds


def test_two_actors_on_a_gpu_take_twice_as_long_each(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"actors.count": 2, "actors.num_gpus": 0.5, "learner.num_gpus": 1})
    assert of.actor_seconds_per_image == pytest.approx(12)
    assert of.recipe.gpu_hours == pytest.approx(2 * 100 * of.recipe.step_seconds / 3600)


def test_the_published_arithmetic_is_spread_over_the_same_gpus(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"actors.count": 3, "group.size": 8})
    perceptual = 16 / 9  # 16 passes instead of 9
    assert of.published_run_seconds == pytest.approx(12800 * (1 + 1 + 3 + perceptual + 24) / 4, rel=1e-9)


def test_rates_follow_the_recipe_s_precisions(tiny_recipe: Recipe) -> None:
    use = Utilisation(transformer=0.5, convolution=0.25)
    plain = rates(tiny_recipe, GPUS["a100"], use)
    assert (plain.transformer, plain.encode, plain.decode) == (0.5 * 19.5e12, 39e12, 39e12)
    changes = {"compute.autocast": "bfloat16", "reward.decode_dtype": "bfloat16"}
    fast = rates(with_changes(tiny_recipe, changes), GPUS["a100"], use)
    assert (fast.transformer, fast.encode, fast.decode, fast.perceptual) == (156e12, 39e12, 78e12, 39e12)
