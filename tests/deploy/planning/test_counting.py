"""The counted work against the published figures, against real models, and against a real backward pass."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.paths import CHECKOUT
from deploy.planning.actor_counting import ActorWork, actor_work
from deploy.planning.counting import Work, count_work, published_work
from deploy.planning.learner_counting import LearnerWork, learner_work
from deploy.planning.untrained_models import UntrainedModels, condition, tokens
from deploy.planning.work_meter import WorkMeter

RECIPES = CHECKOUT / "deploy" / "recipes"


def of_actor(work: Any) -> float:
    return (work.encode + work.policy + work.head + work.decode + work.perceptual) / 1e12


@pytest.fixture(scope="module")
def xxl() -> Work:
    """LlamaGen-XXL at 384 px, G 8."""
    return count_work(load_recipe(RECIPES / "llamagen_xxl_c2i.yaml", []))


@pytest.mark.slow
def test_the_paper_s_main_run_takes_12_tflop_an_image(xxl: Work) -> None:
    learner = (xxl.learner.forward + xxl.learner.backward + xxl.learner.recomputed) / 1e12
    assert of_actor(xxl.actor) == pytest.approx(7.4, rel=0.03)
    assert learner == pytest.approx(5.1, rel=0.03)
    assert of_actor(xxl.actor) + learner == pytest.approx(12.5, rel=0.03)


@pytest.mark.slow
def test_the_released_scripts_take_49_tflop_for_it_and_62_with_the_idle_pass(xxl: Work) -> None:
    published = published_work(xxl.actor, load_recipe(RECIPES / "llamagen_xxl_c2i.yaml", []))
    all_of_it = of_actor(published) + (published.forward + published.backward) / 1e12
    assert all_of_it == pytest.approx(48.7, rel=0.03)
    assert all_of_it + published.idle_kl / 1e12 == pytest.approx(62, rel=0.03)


@pytest.mark.slow
def test_the_paper_s_models_have_their_known_sizes(xxl: Work) -> None:
    # A pass at 384 px takes 310 GFLOP to encode, 567 to decode, 90 through VGG-16: convolutions alone.
    assert xxl.actor.encode / 1e9 == pytest.approx(310, rel=0.01)
    assert xxl.actor.decode / 8e9 == pytest.approx(567, rel=0.01)
    assert xxl.actor.perceptual / 9e9 == pytest.approx(90, rel=0.01)
    assert xxl.num_parameters == 1_410_972_672
    assert xxl.policy_bytes == 4 * 1_410_972_672
    # With checkpointing each of 48 blocks leaves its input: 8 groups of 576 positions, 1536 wide, float32.
    assert xxl.learner.checkpointed_bytes.kept == pytest.approx(48 * 8 * 576 * 1536 * 4, rel=0.03)


def both(recipe: Recipe) -> tuple[ActorWork, LearnerWork]:
    models = UntrainedModels.of(recipe)
    actor = actor_work(recipe, models)
    return actor, learner_work(recipe, models)


@pytest.mark.slow
def test_credit_by_gradient_decodes_twice_instead_of_eight_times(xxl: Work) -> None:
    """One picture forth, and back at the price of the way forth: no gradient is taken in the decoder's weights."""
    recipe = load_recipe(RECIPES / "llamagen_xxl_c2i_gradient.yaml", [])
    work = count_work(recipe)
    a_picture = xxl.actor.decode / 8
    assert work.actor.decode == pytest.approx(a_picture, rel=1e-3)
    assert work.actor.decode + work.actor.gradient == pytest.approx(2.2 * a_picture, rel=0.05)  # LPIPS's way too
    assert work.actor.price == pytest.approx(work.actor.head, rel=0.01)
    published = published_work(work.actor, recipe)
    assert published.decode == pytest.approx(xxl.actor.decode, rel=1e-3)
    assert published.perceptual == pytest.approx(16 * xxl.actor.perceptual / 9, rel=1e-3)
    with FakeTensorMode():
        one = actor_work(with_changes(recipe, {"reward.gradient_batch_size": 1}), UntrainedModels.of(recipe))
    assert 3 < work.actor.peak_bytes["gradient"] / one.peak_bytes["gradient"] < 4.1


def test_the_memory_of_the_way_back_is_bounded_by_its_key(tiny_recipe: Recipe) -> None:
    def peak(**changes: Any) -> int:
        recipe = with_changes(tiny_recipe, {"advantage.credit": "gradient", "reward.lpips": 0} | changes)
        with FakeTensorMode():
            return actor_work(recipe, UntrainedModels.of(recipe)).peak_bytes["gradient"]

    def at_once(count: int, **changes: Any) -> int:
        return peak(**{"reward.gradient_batch_size": count, "actors.images_per_ticket": 4, **changes})

    assert 1.8 < at_once(2) / at_once(1) < 2.1
    assert 1.8 < at_once(4) / at_once(2) < 2.1
    assert at_once(2) == pytest.approx(at_once(2, **{"group.size": 8}), rel=0.05)
    assert at_once(2) == pytest.approx(at_once(2, **{"actors.images_per_ticket": 2}), rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compute.autocast": "bfloat16"},
        {"profile": "published"},
        {"reward.lpips": 0},
        {"advantage.credit": "gradient", "group.size": 1},
    ],
)
def test_fake_tensors_count_what_real_ones_do(tiny_recipe: Recipe, changes: dict[str, Any]) -> None:
    recipe = with_changes(tiny_recipe, changes)
    with FakeTensorMode():
        fake = both(recipe)
    assert fake == both(recipe)


@pytest.mark.parametrize("conditioning", ["class", "text"])
def test_a_real_backward_takes_twice_the_forward(tiny_recipe: Recipe, conditioning: str) -> None:
    source = {"kind": "parquet", "path": "shards"}
    recipe = with_changes(tiny_recipe, {"policy.conditioning": conditioning, "source": source})
    policy = UntrainedModels.of(recipe).policy
    with WorkMeter() as meter:
        with meter("forward"):
            logits = policy(condition(recipe, 3), tokens(3, recipe.num_tokens - 1))
        with meter("backward"):
            logits.sum().backward()
    twice = 2 * meter.flops["forward"]
    if conditioning == "text":  # nobody needs the gradient of the captions' features
        twice -= 2 * 3 * recipe.policy.caption_length * recipe.policy.caption_dim * 16
    assert meter.flops["backward"] == twice


def test_the_tiny_policy_is_counted_by_hand(tiny_recipe: Recipe) -> None:
    actor, learner = both(tiny_recipe)
    T, D, V, hidden = 64, 16, 20, 48
    block = 2 * T * (4 * D * D + 3 * D * hidden) + 4 * T * T * D
    assert actor.policy == 2 * block
    assert actor.head == 2 * T * D * V
    assert learner.forward == actor.policy + actor.head
    assert learner.recomputed == 0


def test_logits_in_parts_and_checkpointed_blocks_are_made_again(tiny_recipe: Recipe) -> None:
    actor, learner = both(with_changes(tiny_recipe, {"learner.logit_rows": 50}))
    assert learner.recomputed == actor.head
    changes = {"learner.logit_rows": 50, "compute.activation_checkpointing": True}
    _, checkpointed = both(with_changes(tiny_recipe, changes))
    assert checkpointed.recomputed == actor.head + actor.policy
    assert learner.checkpointed_bytes.kept < learner.plain_bytes.kept / 2


def test_the_published_profile_takes_a_row_a_sample(tiny_recipe: Recipe) -> None:
    _, learner = both(tiny_recipe)
    _, published = both(with_changes(tiny_recipe, {"profile": "published"}))
    assert published.forward == 4 * learner.forward
    assert published.backward == 4 * learner.backward


def test_a_reward_without_its_metric_has_no_perceptual_work(tiny_recipe: Recipe) -> None:
    actor, _ = both(with_changes(tiny_recipe, {"reward.lpips": 0}))
    assert actor.perceptual == 0
    assert "perceptual" not in actor.peak_bytes


def test_terms_of_ones_own_are_not_looked_at_and_what_they_are_measured_on_is_decoded(tiny_recipe: Recipe) -> None:
    usual, _ = both(tiny_recipe)
    changes = {"reward.mse": 0, "reward.lpips": 0, "reward.python": "gone:sharpness"}
    actor, _ = both(with_changes(tiny_recipe, changes))
    assert (actor.decode, actor.perceptual) == (usual.decode, 0)


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_every_lpips_is_counted_without_its_weights(
    tiny_recipe: Recipe, net: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = with_changes(tiny_recipe, {"image_size": 64, "perceptual": {"family": "lpips", "net": net}})
    with FakeTensorMode():
        actor = actor_work(recipe, UntrainedModels.of(recipe))
    assert actor.perceptual > 0
    assert list(tmp_path.iterdir()) == []


def test_counting_leaves_the_random_numbers_alone(tiny_recipe: Recipe) -> None:
    state = torch.get_rng_state()
    count_work(tiny_recipe)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_picture_that_is_drawn_holds_its_cache_and_its_logits(
    tiny_recipe: Recipe, guidance_scale: float
) -> None:
    recipe = with_changes(tiny_recipe, {"sampling.guidance_scale": guidance_scale})
    num_rows = 2 if guidance_scale != 1 else 1
    layers, width, positions, entries = 2, 16, 64, 20
    cache = num_rows * 2 * layers * width * positions * 4
    drawn = count_work(recipe).drawn_bytes - cache
    assert 0 < drawn < num_rows * entries * 4 + 20 * entries * 8  # float32 logits, and a distribution in float64


def test_beside_adapters_only_they_take_gradients_and_the_way_back_is_one_forward(tiny_recipe: Recipe) -> None:
    narrow = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16"}
    changes = {"reward.lpips": 0, "perceptual": {"family": "lpips"}, **narrow}
    whole = count_work(with_changes(tiny_recipe, changes))
    work = count_work(with_changes(tiny_recipe, changes | {"learner.lora": {"rank": 3}}))
    # of two blocks: wqkv 16 to 48, wo 16 to 16, w1 and w3 16 to 48, w2 48 to 16
    assert work.num_trained == 2 * 3 * (64 + 32 + 64 + 64 + 64)
    assert work.trained_bytes == 4 * work.num_trained
    assert work.num_parameters == whole.num_parameters + work.num_trained
    in_linear = 2 * (16 * 48 + 16 * 16 + 3 * 16 * 48) + 16 * 20  # the head, too
    assert work.policy_bytes - work.trained_bytes == whole.policy_bytes - 2 * in_linear
    assert whole.num_trained == whole.num_parameters
    assert work.learner.recomputed == whole.learner.recomputed
    assert 1.0 < work.learner.backward / work.learner.forward < 1.7  # adapters of a third of these layers' width


def test_frozen_weights_that_are_used_as_they_are_count_as_weights_and_not_as_work(tiny_recipe: Recipe) -> None:
    """Autocast makes no copy of them, and a view of one is not a new tensor."""
    narrow = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16", "policy.size.dim": 256}
    changes = {"reward.lpips": 0, "perceptual": {"family": "lpips"}, **narrow}
    whole = count_work(with_changes(tiny_recipe, changes))
    work = count_work(with_changes(tiny_recipe, changes | {"learner.lora": {"rank": 1}}))
    assert work.actor.peak_bytes["policy"] < whole.actor.peak_bytes["policy"]
    assert work.learner.plain_bytes.kept < whole.learner.plain_bytes.kept
