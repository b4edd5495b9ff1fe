"""Seconds, bottleneck and GPU-hours, by hand: rates of 1 TFLOP a second, weights of 1 GB."""

from dataclasses import replace
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.planning.counting import Work, published_work
from deploy.planning.gpus import ASSUMED, GPUS, HOPPER, Utilisation
from deploy.planning.rates import Rates, rates
from deploy.planning.timing import Timing, estimate

TERA = 1e12
COPY = 0.05  # 1 GB at 20 GB/s
STORE = 2 / 3  # 1 GB at 3 GB/s, in and out
CHECKPOINT = 3  # 250 M parameters and two moments of 4 bytes at 1 GB/s
OPTIMIZER = 0.1  # 250 M parameters of 40 bytes at 0.1 TB/s
GPU = replace(GPUS["a100"], bytes_per_second=0.1e12 / 0.7)


def timing(recipe: Recipe, work: Work, changes: dict[str, Any]) -> Timing:
    """Of 100 steps of 128 images in tickets of 4: an actor takes 6 s an image, a rank 3. Two checkpoints."""
    shape = {"learner.num_steps": 100, "learner.images_per_step": 128, "actors.images_per_ticket": 4}
    recipe = with_changes(recipe, shape | {"buffer.max_staleness": 1, "checkpoint.every": 50} | changes)
    rate = Rates(transformer=TERA, encode=TERA, decode=TERA, perceptual=TERA, judge=TERA, memory=TERA)
    return estimate(recipe, work, published_work(work.actor, recipe), GPU, rate)


def test_whoever_is_slower_sets_the_step_and_checkpoints_add_to_the_run(tiny_recipe: Recipe, work: Work) -> None:
    step = timing(tiny_recipe, work, {"actors.count": 2}).recipe
    assert step.actors_seconds == pytest.approx(128 * 6 / 2)
    assert step.learner_seconds == pytest.approx(128 * 3 / 1 + OPTIMIZER)
    round_trip = step.actors_seconds + step.learner_seconds + 2 * COPY + STORE  # twice as long as a step may be
    assert step.step_seconds == pytest.approx(round_trip / 2)
    slower = timing(tiny_recipe, work, {"actors.count": 1}).recipe
    assert slower.step_seconds == pytest.approx(768 + COPY)
    assert slower.weights_seconds == pytest.approx(COPY)
    assert slower.checkpoints_seconds == 2 * CHECKPOINT
    assert slower.run_seconds == pytest.approx(100 * (768 + COPY) + 2 * CHECKPOINT)
    assert slower.gpu_hours == pytest.approx(2 * slower.run_seconds / 3600)


def test_the_fewest_actors_that_keep_up_saturate_the_learner(tiny_recipe: Recipe, work: Work) -> None:
    one_rank = timing(tiny_recipe, work, {})
    assert one_rank.actors_per_learner == pytest.approx(768 / 384.1)
    assert one_rank.saturating.num_actors == 2
    four_ranks = timing(tiny_recipe, work, {"learner.num_ranks": 4})
    assert four_ranks.saturating.num_actors == 8


def test_on_policy_actors_and_learner_take_turns_and_tickets_are_whole(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"buffer.max_staleness": 0, "actors.count": 5})
    assert of.recipe.actors_seconds == pytest.approx(7 * 4 * 6)  # 32 tickets: two actors do 7 of them
    both = of.recipe.actors_seconds + of.recipe.learner_seconds
    assert of.recipe.weights_seconds == pytest.approx(2 * COPY + STORE)
    assert of.recipe.step_seconds == pytest.approx(both + 2 * COPY + STORE)


def test_ranks_that_roll_out_do_both_one_after_the_other_and_nothing_travels(
    tiny_recipe: Recipe, work: Work
) -> None:
    changes = {"placement": "colocated", "buffer.max_staleness": 0, "actors.count": 0, "learner.num_ranks": 5}
    of = timing(tiny_recipe, work, changes)
    assert of.recipe.name == "5 colocated"
    assert of.recipe.actors_seconds == pytest.approx(7 * 4 * 6)
    assert of.recipe.learner_seconds == pytest.approx(26 * 3 + OPTIMIZER)  # 128 images: some ranks have 26
    assert of.recipe.weights_seconds == 0
    assert of.recipe.step_seconds == pytest.approx(7 * 4 * 6 + 26 * 3 + OPTIMIZER)
    assert of.recipe.gpu_hours == pytest.approx(5 * of.recipe.run_seconds / 3600)


def test_the_other_placement_has_the_same_gpus_and_split_the_best_division_of_them(
    tiny_recipe: Recipe, work: Work
) -> None:
    split = timing(tiny_recipe, work, {"actors.count": 3, "learner.num_ranks": 1})
    assert split.other.name == "4 colocated"
    assert split.best is split.other
    changes = {"placement": "colocated", "buffer.max_staleness": 0, "actors.count": 0, "learner.num_ranks": 6}
    colocated = timing(tiny_recipe, work, changes)
    assert colocated.other.name == "4 + 2, S 1"  # an image takes an actor twice as long as a rank
    assert colocated.other.gpu_hours == pytest.approx(6 * colocated.other.run_seconds / 3600)


def test_more_actors_than_tickets_are_of_no_use(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"actors.images_per_ticket": 64, "learner.num_ranks": 128, "actors.count": 5})
    assert of.most_useful_actors == 2
    assert of.saturating.num_actors == 2
    assert of.recipe.actors_seconds == pytest.approx(64 * 6)
    assert of.saturating.actors_seconds > of.saturating.learner_seconds


def test_two_actors_on_a_gpu_take_twice_as_long_each(tiny_recipe: Recipe, work: Work) -> None:
    of = timing(tiny_recipe, work, {"actors.count": 2, "actors.num_gpus": 0.5, "learner.num_gpus": 1})
    assert of.actor_seconds_per_image == pytest.approx(12)
    assert of.recipe.gpu_hours == pytest.approx(2 * of.recipe.run_seconds / 3600)


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


def test_newer_gpus_are_taken_to_use_less_of_their_peak_and_compiled_code_more(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"compute.autocast": "bfloat16"})
    compiled = with_changes(recipe, {"compute.compile": True})
    for name, gpu in GPUS.items():
        expected = HOPPER if name in ("h100", "h200", "b200") else ASSUMED
        plain, fused = (rates(each, gpu, Utilisation()) for each in (recipe, compiled))
        assert plain.transformer == expected.transformer * gpu.bfloat16
        assert fused.transformer == expected.compiled_transformer * gpu.bfloat16 > plain.transformer
        assert plain.decode == plain.encode == fused.encode == expected.convolution * gpu.tf32
        assert fused.decode == expected.compiled_decoder * gpu.tf32 > plain.decode
