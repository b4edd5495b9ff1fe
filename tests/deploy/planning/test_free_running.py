"""The work of free-running groups, mixed steps and judges, against counts by hand."""

from typing import Any

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.planning.actor_counting import ActorWork, actor_work
from deploy.planning.counting import Work, count_work
from deploy.planning.gpus import GPUS, Utilisation
from deploy.planning.judges import B32, H14, L14, UntrainedJudges, judge_shape, num_bytes
from deploy.planning.rates import rates
from deploy.planning.timing import estimate
from deploy.planning.untrained_models import UntrainedModels

FREE = {
    "rollout.kind": "free_running",
    "reward": {"mse": 0, "lpips": 0, "classifier": 1},
    "evaluation.classifier": "judge.safetensors",
    "learner.prior": "kl",
    "context": {},
}
T, D, V, HIDDEN, G = 64, 16, 20, 48, 4  # of the tiny recipe: two blocks
PRODUCTS = 2 * (4 * D * D + 3 * D * HIDDEN)  # of a token in a block
ROW = 2 * (T * PRODUCTS + 4 * T * T * D) + 2 * T * D * V  # a forward under teacher forcing, head included
CACHED = T * (2 * PRODUCTS + 2 * D * V) + 2 * 4 * D * T * (T + 1) // 2  # token t attends to t positions


def free(recipe: Recipe, **changes: Any) -> Recipe:
    return with_changes(recipe, FREE | {key.replace("__", "."): each for key, each in changes.items()})


def counted(recipe: Recipe, **changes: Any) -> Work:
    return count_work(free(recipe, **changes))


def test_samples_are_drawn_one_token_at_a_time_and_forwarded_once_more(tiny_recipe: Recipe) -> None:
    work = counted(tiny_recipe)
    assert work.actor.draw == G * CACHED
    assert (work.actor.policy, work.actor.head, work.actor.encode) == (G * ROW, 0, 0)
    assert work.actor.decode > 0
    assert work.learner.forward == 2 * G * ROW  # and of the reference
    assert work.learner.backward == 2 * G * ROW


def test_guidance_doubles_rows_and_a_published_profile_learns_without_it(tiny_recipe: Recipe) -> None:
    plain, guided = counted(tiny_recipe), counted(tiny_recipe, rollout__guidance_scale=2)
    published = counted(tiny_recipe, rollout__guidance_scale=2, profile="published")
    assert guided.actor.draw == published.actor.draw == 2 * plain.actor.draw
    assert (guided.actor.policy, guided.learner.forward) == (2 * plain.actor.policy, 2 * plain.learner.forward)
    assert (published.actor.policy, published.learner.forward) == (plain.actor.policy, plain.learner.forward)
    assert guided.learner.plain_bytes.kept > 1.8 * plain.learner.plain_bytes.kept


def test_each_token_reads_the_weights_once_for_the_ticket_and_half_of_a_whole_cache(tiny_recipe: Recipe) -> None:
    cache = 2 * 2 * D * T * 4  # keys and values of two layers, float32, a sample
    weights = counted(tiny_recipe).policy_bytes
    rope = 2 * D // 4 * T * 4  # counted along
    read = counted(tiny_recipe).actor.draw_bytes  # tickets of two
    assert read == pytest.approx(T * (weights / 2 + G * cache / 2), abs=T * rope)
    larger = counted(tiny_recipe, actors__images_per_ticket=4)
    assert read - larger.actor.draw_bytes == pytest.approx(T * weights / 4, abs=T * rope)


def test_drawing_takes_as_long_as_its_bytes_take_to_be_read(tiny_recipe: Recipe) -> None:
    recipe, gpu = free(tiny_recipe), GPUS["a100"]
    work, rate = count_work(recipe), rates(recipe, gpu, Utilisation())
    actor = work.actor
    seconds = actor.policy / rate.transformer + actor.decode / rate.decode + actor.draw_bytes / rate.memory
    seconds += actor.classifier / rate.perceptual
    assert actor.draw_bytes / rate.memory > actor.draw / rate.transformer
    assert estimate(recipe, work, None, gpu, rate).actor_seconds_per_image == pytest.approx(seconds)
    assert rate.memory == 0.7 * gpu.bytes_per_second


def test_a_mixed_step_is_the_mean_of_both_kinds_and_as_large_as_the_larger(tiny_recipe: Recipe) -> None:
    changes = {"evaluation.classifier": "judge.safetensors", "reward.classifier": 1, "reward.lpips": 0}
    shares = {"rollout": {"teacher_forced": 0.5, "free_running": 0.5}, "actors.images_per_ticket": 1}
    mixed = count_work(with_changes(tiny_recipe, changes | shares | {"learner.prior": "kl"}))
    forced = count_work(with_changes(tiny_recipe, {"reward.lpips": 0, "actors.images_per_ticket": 1}))
    alone = counted(tiny_recipe, actors__images_per_ticket=1)
    assert mixed.actor.draw == alone.actor.draw // 2
    assert mixed.actor.encode == forced.actor.encode // 2
    assert mixed.learner.forward == (2 * forced.learner.forward + alone.learner.forward) // 2
    assert mixed.learner.plain_bytes == alone.learner.plain_bytes
    assert set(mixed.actor.peak_bytes) == set(forced.actor.peak_bytes) | set(alone.actor.peak_bytes)


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("ViT-B-32.pt", B32),
        ("hf://openai/clip-vit-base-patch32/model", B32),
        ("ViT-L-14.pt", L14),
        ("mine.pt", L14),
    ],
)
def test_a_clip_that_is_not_here_is_taken_for_what_its_name_says(
    tiny_recipe: Recipe, file: str, shape: Any
) -> None:
    recipe = with_changes(tiny_recipe, {"reward.clip": 1, "reward_models.clip": file})
    assert judge_shape(recipe, "clip") == shape
    assert judge_shape(recipe, "hps") == judge_shape(recipe, "pickscore") == H14


def test_judges_see_each_sample_and_a_prompt_once_and_those_of_one_file_are_held_once(tiny_recipe: Recipe) -> None:
    """A published CLIP L/14 takes 162 GFLOP a picture (257 places, 24 layers of 1024) and 13 a prompt."""
    one, of_one = judged(tiny_recipe, {"reward.clip": 1})
    two, of_two = judged(tiny_recipe, {"reward.clip": 1, "reward.aesthetic": 1})
    block = 2 * 12 * 1024**2 * 257 + 4 * 257**2 * 1024
    picture = 24 * block + 2 * 256 * 3 * 14**2 * 1024 + 2 * 1024 * 768
    prompt = 12 * (2 * 12 * 768**2 * 77 + 4 * 77**2 * 768) + 2 * 768 * 768
    assert one.judge == G * picture + prompt
    assert two.judge - one.judge == G * picture
    assert num_bytes(of_one) == num_bytes(of_two) == pytest.approx(4 * 427.6e6, rel=0.001)
    assert of_one.names == ["clip ViT-L/14"]
    assert one.peak_bytes["score"] > 0


def judged(recipe: Recipe, changes: dict[str, Any]) -> tuple[ActorWork, UntrainedJudges]:
    recipe = with_changes(recipe, {"reward.lpips": 0, "reward.decode_batch_size": G} | changes)
    with FakeTensorMode():
        models = UntrainedModels.of(recipe)
        return actor_work(recipe, models), models.judges
