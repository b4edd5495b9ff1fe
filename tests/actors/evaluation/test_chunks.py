"""Evaluation in chunks: what a chunk gives depends on the chunk and the policy alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.evaluation.chunks import GenerateChunk
from actors.evaluation.conditions import class_labels, stacked
from actors.evaluation.free_running import sample_tokens
from actors.evaluation.held_out import HeldOutChunk, Unscored
from actors.evaluation.models import EvaluationModels
from actors.image_batch import to_uint8
from actors.rewards.build import build_reward
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import PolicyModule, build_policy, build_tokenizer, caption_format
from common.protocols import SourceImage
from common.sample_order import SampleOrder

CPU = torch.device("cpu")


@pytest.fixture
def models(tiny_recipe: Recipe, tmp_path: Path) -> EvaluationModels:
    """A random tokenizer, and 8 pictures of noise of which 4 are held out."""
    draws = np.random.default_rng(0)
    for index in range(8):
        (tmp_path / "noise").mkdir(exist_ok=True)
        pixels = draws.integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{index}.png")
    source = {"kind": "image_folder", "path": str(tmp_path), "held_out_fraction": 0.5}
    recipe = with_changes(tiny_recipe, {"source": source, "reward.lpips": 0, "sampling.top_k": 10})
    torch.manual_seed(0)
    return EvaluationModels(recipe, build_tokenizer(recipe.tokenizer, image_size=32).eval(), None, CPU)


def test_generated_pictures_take_classes_in_turn(policy: PolicyModule, models: EvaluationModels) -> None:
    pictures = GenerateChunk((8, 9, 10, 21), seed=0, temperature=1.0).run(policy, models)
    assert pictures.sample_index_N.tolist() == [8, 9, 10, 21]
    assert pictures.label_N.tolist() == [8, 9, 0, 1]
    assert pictures.pixels_NHWC.shape == (4, 32, 32, 3)
    assert pictures.pixels_NHWC.dtype == np.uint8


def test_uniform_classes_are_drawn_from_the_chunks_seed(policy: PolicyModule, models: EvaluationModels) -> None:
    uniform = replace(models, recipe=with_changes(models.recipe, {"sampling.classes": "uniform"}))
    pictures = GenerateChunk((0, 1, 2, 3), seed=3, temperature=1.0).run(policy, uniform)
    assert pictures.label_N.tolist() == class_labels("uniform", 10, 3, range(4), lambda: None).tolist()
    assert pictures.label_N.tolist() != [0, 1, 2, 3]


def test_training_classes_have_the_shares_of_the_data(policy: PolicyModule, models: EvaluationModels) -> None:
    training = replace(models, recipe=with_changes(models.recipe, {"sampling.classes": "training"}))
    pictures = GenerateChunk(tuple(range(20)), seed=3, temperature=1.0).run(policy, training)
    seen = {int(training.train.read(index).condition["label"]) for index in range(len(training.train))}
    assert set(pictures.label_N.tolist()) == seen < set(range(10))


@torch.no_grad()
def test_an_output_size_resizes_by_plain_bicubic_before_rounding(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    pictures = GenerateChunk((2, 3), seed=5, temperature=1.0, output_size=20).run(policy, models)
    tokens_NT = sample_tokens(policy, {"label": torch.tensor([2, 3])}, models.recipe.sampling, 5, (2, 3))
    pixels_NCHW = models.tokenizer.decode(tokens_NT)
    resized = torch.nn.functional.interpolate(pixels_NCHW, size=20, mode="bicubic", antialias=False)
    np.testing.assert_array_equal(pictures.pixels_NHWC, to_uint8(resized))
    assert pictures.pixels_NHWC.shape == (2, 20, 20, 3)


def test_pictures_are_decoded_a_few_at_a_time(
    policy: PolicyModule, models: EvaluationModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, decode = [], models.tokenizer.decode
    monkeypatch.setattr(models.tokenizer, "decode", lambda tokens: sizes.append(len(tokens)) or decode(tokens))
    few = replace(models, recipe=with_changes(models.recipe, {"reward.decode_batch_size": 2}))
    drawn, at_once = (
        GenerateChunk(tuple(range(5)), seed=0, temperature=1.0).run(policy, each) for each in (few, models)
    )
    assert sizes == [2, 2, 1, 5]
    assert np.abs(drawn.pixels_NHWC.astype(int) - at_once.pixels_NHWC).max() <= 1


def test_captions_are_what_a_text_conditional_policy_is_given(
    text_policy: PolicyModule, text_models: EvaluationModels
) -> None:
    draws = np.random.default_rng(0)
    captions = tuple(draws.normal(size=(tokens, 6)).astype(np.float16) for tokens in (1, 3))
    pictures = GenerateChunk((4, 5), seed=0, temperature=1.0, captions=captions).run(text_policy, text_models)
    assert pictures.label_N.tolist() == [-1, -1]
    rows = caption_format(text_models.recipe.policy)
    condition = stacked([rows.of_caption(features_LD) for features_LD in captions])
    tokens_NT = sample_tokens(text_policy, condition, text_models.recipe.sampling, 0, (4, 5))
    with torch.no_grad():
        np.testing.assert_array_equal(pictures.pixels_NHWC, to_uint8(text_models.tokenizer.decode(tokens_NT)))
    swapped = GenerateChunk((4, 5), 0, 1.0, captions[::-1]).run(text_policy, text_models)
    assert (swapped.pixels_NHWC != pictures.pixels_NHWC).any()


def test_without_prompts_the_held_out_captions_are_taken_in_turn(
    text_policy: PolicyModule, text_models: EvaluationModels
) -> None:
    captions = [np.full((2, 6), value, np.float16) for value in (1, -1)]
    rows = caption_format(text_models.recipe.policy)
    source = Captioned([rows.of_caption(features_LD) for features_LD in captions])
    models = replace(text_models)
    models.__dict__["held_out"] = source  # what the cached property would read from shards
    in_turn = GenerateChunk((0, 1, 2), seed=0, temperature=1.0).run(text_policy, models)
    named = GenerateChunk((0, 1, 2), 0, 1.0, (captions[0], captions[1], captions[0])).run(text_policy, models)
    np.testing.assert_array_equal(in_turn.pixels_NHWC, named.pixels_NHWC)


class Captioned:
    """A held-out split of captions, by the condition of each."""

    def __init__(self, conditions: list):
        self.conditions = conditions

    def __len__(self) -> int:
        return len(self.conditions)

    def read(self, index: int) -> SourceImage:
        return SourceImage(str(index), np.zeros((32, 32, 3), np.uint8), self.conditions[index])


@pytest.fixture
def text_models(models: EvaluationModels) -> EvaluationModels:
    text = {"conditioning": "text", "caption_dim": 6, "caption_length": 4}
    changes = {f"policy.{key}": value for key, value in text.items()}
    return replace(
        models, recipe=with_changes(models.recipe, {"source": {"kind": "parquet", "path": "shards"}, **changes})
    )


@pytest.fixture
def text_policy(text_models: EvaluationModels) -> PolicyModule:
    torch.manual_seed(1)
    policy = build_policy(text_models.recipe.policy, codebook_size=20, grid_size=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def test_generated_pictures_are_the_decoded_tokens_of_the_chunks_temperature(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    pictures = GenerateChunk((2, 3), seed=5, temperature=0.25).run(policy, models)
    sampling = models.recipe.sampling.model_copy(update={"temperature": 0.25})
    assert sampling.top_k == 10
    tokens_NT = sample_tokens(policy, {"label": torch.tensor([2, 3])}, sampling, 5, (2, 3))
    with torch.no_grad():
        expected = to_uint8(models.tokenizer.decode(tokens_NT))
    np.testing.assert_array_equal(pictures.pixels_NHWC, expected)


def test_pictures_do_not_depend_on_how_they_are_cut_into_chunks(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    whole = GenerateChunk((0, 1, 2), seed=0, temperature=1.0).run(policy, models).pixels_NHWC
    parts = [GenerateChunk((index,), seed=0, temperature=1.0).run(policy, models) for index in range(3)]
    joined = np.concatenate([part.pixels_NHWC for part in parts])
    # equal tokens; the decoder's sums may round otherwise in another batch
    assert np.abs(whole.astype(int) - joined.astype(int)).max() <= 1


def test_held_out_rewards_are_those_of_rollouts_on_the_runs_order_of_images_with_the_chunks_seed(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    rewards = HeldOutChunk((0, 5), seed=1000).run(policy, models)
    recipe = with_changes(models.recipe, {"seed": 1000})
    order = SampleOrder(models.recipe.seed, len(models.held_out))
    reward = build_reward(recipe.reward, models.tokenizer, None)
    pipeline = RolloutPipeline(recipe, models.held_out, models.tokenizer, reward, CPU, order)
    groups = pipeline.roll_out(policy, 0, (0, 5), StageClock()).groups
    assert groups is not None
    assert len(models.held_out) == 4
    np.testing.assert_array_equal(rewards.terms["mse"], groups.reward_terms["mse"])
    assert {name: term_BG.shape for name, term_BG in rewards.terms.items()} == {"mse": (2, 4)}


def test_another_seed_draws_other_held_out_groups(policy: PolicyModule, models: EvaluationModels) -> None:
    one, same, other = (HeldOutChunk((0, 1), seed=seed).run(policy, models) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.terms["mse"], same.terms["mse"])
    assert (one.terms["mse"] != other.terms["mse"]).any()


def test_held_out_images_none_of_which_can_be_read_are_named_and_do_not_end_the_scoring(
    policy: PolicyModule, models: EvaluationModels, tmp_path: Path
) -> None:
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no picture")
    result = HeldOutChunk((0, 1), seed=0).run(policy, models)
    assert isinstance(result, Unscored)
    assert result.reason.endswith(".png: it is of no known picture format")


def test_held_out_scores_do_without_schedule_and_maps_and_know_the_absolute_error(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    changes = {
        "context.noise_schedule": "linear",
        "context.noise_end": 0.0,
        "advantage.credit": "token",
        "reward.l1": 1.0,
    }
    other = EvaluationModels(with_changes(models.recipe, changes), models.tokenizer, None, CPU)
    plain, scored = (HeldOutChunk((0, 5), seed=3).run(policy, each) for each in (models, other))
    mse_BG, l1_BG = scored.terms["mse"], scored.terms["l1"]
    np.testing.assert_array_equal(mse_BG, plain.terms["mse"])
    assert (list(plain.terms), list(plain.reconstruction)) == (["mse"], ["mse"])
    assert list(scored.reconstruction) == ["mse", "l1"]
    assert ((l1_BG > 0) & (l1_BG**2 <= mse_BG)).all()  # a mean and a root mean square
