"""The work of judge actors, in memory, bytes and seconds: rates of 1 TFLOP a second."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.image_classifier import ImageClassifier
from deploy.planning.counting import Work, count_work
from deploy.planning.gpus import GPUS
from deploy.planning.judge_counting import JudgeWork, judge_work
from deploy.planning.memory import judge_memory, judge_problem, store_bytes
from deploy.planning.rates import Rates
from deploy.planning.timing import Timing, estimate
from deploy.planning.untrained_models import UntrainedModels

GB, TERA, MEGA = 10**9, 10**12, 10**6
G = 4
RATES = Rates(transformer=TERA, encode=TERA, decode=TERA, perceptual=TERA, judge=TERA, memory=TERA)
BY_CLASSIFIER = {"reward.classifier": 1, "evaluation.classifier": "judge.safetensors"}
APART = {"reward.actors.count": 2}


def counted(recipe: Recipe, *changes: dict[str, Any]) -> Work:
    return count_work(with_changes(recipe, {key: value for each in changes for key, value in each.items()}))


def test_a_classifier_is_counted_as_pytorch_counts_a_real_one_within_and_apart(tiny_recipe: Recipe) -> None:
    real = ImageClassifier(10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        real(torch.zeros(G, 3, 32, 32))
    within, apart = counted(tiny_recipe, BY_CLASSIFIER), counted(tiny_recipe, BY_CLASSIFIER, APART)
    assert within.actor.classifier == apart.judge.classifier == counter.get_total_flops()
    assert (within.judge.flops, within.judge_bytes, apart.actor.classifier) == (0, 0, 0)
    size = sum(parameter.nbytes for parameter in real.parameters())
    assert apart.judge_bytes == within.frozen_bytes - apart.frozen_bytes == size
    assert within.actor.decode == apart.actor.decode
    assert set(within.actor.peak_bytes) == {*apart.actor.peak_bytes, "score"}
    assert within.judges == apart.judges == ("classifier",)


def test_a_judge_actor_does_what_a_reward_actor_did(tiny_recipe: Recipe) -> None:
    both = {"reward.clip": 1, "reward.aesthetic": 1, "reward.decode_batch_size": G}
    within, apart = counted(tiny_recipe, both), counted(tiny_recipe, both, APART)
    assert apart.judge.preferences == within.actor.judge > 0
    assert apart.actor.judge == 0
    assert apart.judge_bytes == within.frozen_bytes - apart.frozen_bytes == pytest.approx(4 * 427.6e6, rel=0.001)
    assert apart.judge.peak_bytes == pytest.approx(within.actor.peak_bytes["score"], rel=0.05)


def test_a_judge_s_memory_is_that_of_real_tensors_and_grows_with_its_pictures(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, BY_CLASSIFIER | APART)
    with FakeTensorMode():
        fake = judge_work(recipe, UntrainedModels.of(recipe))
    assert fake == judge_work(recipe, UntrainedModels.of(recipe))
    pictures = 2 * G * 3 * 32**2 * (1 + 4)  # a ticket of two groups, in bytes and as float32
    assert fake.peak_bytes > pictures
    one = judge_work(with_changes(recipe, {"reward.decode_batch_size": G}), UntrainedModels.of(recipe))
    assert fake.peak_bytes == pytest.approx(2 * one.peak_bytes, rel=0.05)


def test_in_a_step_of_both_kinds_the_half_that_is_drawn_freely_is_judged(tiny_recipe: Recipe) -> None:
    shares = {"rollout": {"teacher_forced": 0.5, "free_running": 0.5}, "learner.prior": "kl"}
    changes = BY_CLASSIFIER | APART | shares | {"actors.images_per_ticket": 1}
    mixed = with_changes(tiny_recipe, changes)
    all_of_it = counted(tiny_recipe, BY_CLASSIFIER, APART, {"actors.images_per_ticket": 1})
    assert count_work(mixed).judge.classifier == all_of_it.judge.classifier // 2
    assert mixed.handed_over_bytes == 3 * 32**2 * G // 2


def test_what_is_handed_over_is_the_pictures_and_the_image_that_they_are_to_show(
    tiny_recipe: Recipe, work: Work
) -> None:
    recipe = with_changes(tiny_recipe, BY_CLASSIFIER | APART)
    assert store_bytes(recipe, work).pictures_a_step == 4 * 3 * 32**2 * (G + 1)
    free = {
        "rollout.kind": "free_running",
        "reward.mse": 0,
        "reward.lpips": 0,
        "learner.prior": "kl",
        "context": {},
    }
    assert with_changes(recipe, free).handed_over_bytes == 3 * 32**2 * G
    assert tiny_recipe.handed_over_bytes == 0


@pytest.fixture
def judged(work: Work) -> Work:
    """Judge actors take 2 TFLOP an image, 6 GB of models, and 3 GB at work."""
    return replace(work, judge=JudgeWork(3 * TERA // 2, TERA // 2, 3 * GB), judge_bytes=6 * GB)


def test_a_judge_actor_holds_its_models_and_what_it_judges_at_once(tiny_recipe: Recipe, judged: Work) -> None:
    recipe = with_changes(tiny_recipe, BY_CLASSIFIER | APART)

    def said(gigabytes: float, **changes: Any) -> str | None:
        gpu = replace(GPUS["a100"], memory_bytes=int(gigabytes * GB))
        own = with_changes(recipe, changes)
        memory = judge_memory(own, judged, gpu)
        assert memory is not None
        assert memory.total == 6 * GB + 3 * GB + 1 * GB
        return judge_problem(own, memory)

    assert said(12) is None
    assert said(10) == (
        "a judge actor needs 10.0 GB of the 9.0 GB that it can use: lower reward.decode_batch_size (8 pictures at "
        "once)"
    )
    assert said(10, **{"reward.decode_batch_size": G, "reward_models.batch_size": 3}) == (
        "a judge actor needs 10.0 GB of the 9.0 GB that it can use: lower reward_models.batch_size (3 pictures at "
        "once), or it needs a GPU with more memory"
    )
    assert said(20, **{"reward.actors.num_gpus": 0.25}) == (
        "a judge actor needs 10.0 GB of the 4.5 GB that it can use, and its models alone 7.0 GB: give it more of "
        "a GPU (reward.actors.num_gpus is 0.25)"
    )
    assert judge_memory(recipe, replace(judged, judge_bytes=0), GPUS["a100"]) is None


@pytest.fixture
def timing(tiny_recipe: Recipe, judged: Work) -> Callable[..., Timing]:
    """Of 128 images a step in tickets of 4. An actor takes 6 s an image, a judge 2, a rank 3 and little more."""
    shape = {"learner.images_per_step": 128, "actors.images_per_ticket": 4, "buffer.max_staleness": 1}

    def of(**changes: Any) -> Timing:
        own = {key.replace("__", "."): value for key, value in changes.items()}
        recipe = with_changes(tiny_recipe, BY_CLASSIFIER | shape | own)
        fast = replace(GPUS["a100"], bytes_per_second=1e18)
        return estimate(recipe, replace(judged, trained_bytes=0), None, fast, RATES)

    return of


def test_the_slowest_of_actors_judges_and_learner_sets_the_step(timing: Callable[..., Timing]) -> None:
    of = timing(actors__count=8, learner__num_ranks=8, reward__actors__count=1)
    assert (of.recipe.actors_seconds, of.recipe.judges_seconds) == (96, 256)
    assert of.recipe.learner_seconds == pytest.approx(48)
    assert of.recipe.step_seconds == pytest.approx(256)
    assert of.judges is not None
    assert (of.judges.ticket_seconds, of.judges.enough) == (8, 3)
    enough = timing(actors__count=8, learner__num_ranks=8, reward__actors__count=3)
    assert enough.recipe.step_seconds == pytest.approx(96)
    assert enough.recipe.gpu_hours == pytest.approx((8 + 8 + 3) * enough.recipe.run_seconds / 3600)


def test_on_policy_judges_work_while_others_are_rolled_out_and_the_last_ticket_is_waited_for(
    timing: Callable[..., Timing],
) -> None:
    of = timing(actors__count=4, reward__actors__count=2, buffer__max_staleness=0)
    assert (of.recipe.actors_seconds, of.recipe.judges_seconds) == (8 * 24, 16 * 8)
    assert of.recipe.scored_seconds == 8 * 24 + 8
    assert of.recipe.step_seconds == pytest.approx(8 * 24 + 8 + 384)
    slow = timing(actors__count=32, reward__actors__count=2, buffer__max_staleness=0)
    assert slow.recipe.scored_seconds == 24 + 16 * 8
    assert slow.judges is not None
    assert slow.judges.enough == 11  # three tickets each: 24 + 3 * 8 + 384 seconds; with 32 judges 416


def test_beside_ranks_that_roll_out_judges_are_waited_for_as_well(timing: Callable[..., Timing]) -> None:
    changes = {"placement": "colocated", "buffer__max_staleness": 0, "actors__count": 0, "learner__num_ranks": 8}
    of = timing(**changes, reward__actors__count=4)
    assert (of.recipe.actors_seconds, of.recipe.judges_seconds) == (4 * 24, 8 * 8)
    assert of.recipe.step_seconds == pytest.approx(4 * 24 + 8 + 48)
    assert of.recipe.gpu_hours == pytest.approx((8 + 4) * of.recipe.run_seconds / 3600)
