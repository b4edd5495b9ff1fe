"""The features of free-running pictures, in chunks: what leaves the process that drew them."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.evaluation.chunks import FeaturesChunk, GenerateChunk, PictureFeatures
from actors.evaluation.features import extract_features
from actors.evaluation.models import EvaluationModels
from actors.rewards.preference import RewardModels
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import PolicyModule, build_policy, build_tokenizer
from common.models.image_classifier import FEATURE_DIM, ImageClassifier
from common.models.weights_files import save_weights
from tests.clips import reward_models

CPU = torch.device("cpu")


@pytest.fixture
def models(tiny_recipe: Recipe, tmp_path: Path) -> EvaluationModels:
    """A random tokenizer and a random classifier."""
    torch.manual_seed(0)
    save_weights(ImageClassifier(10).state_dict(), tmp_path / "classifier.safetensors")
    recipe = with_changes(tiny_recipe, {"evaluation.classifier": str(tmp_path / "classifier.safetensors")})
    return EvaluationModels(recipe, build_tokenizer(recipe.tokenizer, image_size=32).eval(), None, CPU)


def test_they_are_those_of_exactly_the_pictures_that_are_drawn(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    generate = GenerateChunk((7, 8, 12), seed=5, temperature=0.5)
    result, drawn = (chunk.run(policy, models) for chunk in (FeaturesChunk(generate, num_shown=2), generate))
    features_ND, logits_NK = extract_features(models.features, [drawn.pixels_NHWC])
    np.testing.assert_array_equal(result.features_ND, features_ND)
    np.testing.assert_array_equal(result.logits_NK, logits_NK)
    assert result.features_ND.shape == (3, FEATURE_DIM)
    assert result.label_N.tolist() == [7, 8, 2]
    np.testing.assert_array_equal(result.shown_NHWC, drawn.pixels_NHWC[:2])


@pytest.mark.parametrize(("num_shown", "shape"), [(0, (0, 32, 32, 3)), (1, (1, 32, 32, 3)), (9, (3, 32, 32, 3))])
def test_no_more_pictures_are_shown_than_are_asked_for_and_drawn(
    policy: PolicyModule, models: EvaluationModels, num_shown: int, shape: tuple[int, ...]
) -> None:
    result = FeaturesChunk(GenerateChunk((0, 1, 2), seed=0, temperature=1.0), num_shown).run(policy, models)
    assert (result.shown_NHWC.shape, result.shown_NHWC.dtype) == (shape, np.uint8)


def test_a_result_is_as_large_for_large_pictures_but_for_those_shown(models: EvaluationModels) -> None:
    small, large = (num_bytes(result_at(size, models, num_shown=0)) for size in (32, 64))
    assert small == large
    assert large < 64 * 64 * 3
    small, large = (num_bytes(result_at(size, models, num_shown=1)) for size in (32, 64))
    assert large - small == pytest.approx((64 * 64 - 32 * 32) * 3, abs=32)  # the length of a number or two


def result_at(image_size: int, models: EvaluationModels, num_shown: int) -> PictureFeatures:
    recipe = with_changes(models.recipe, {"image_size": image_size})
    policy = build_policy(recipe.policy, codebook_size=20, grid_size=recipe.grid_size).eval()
    sized = EvaluationModels(recipe, build_tokenizer(recipe.tokenizer, image_size=image_size).eval(), None, CPU)
    return FeaturesChunk(GenerateChunk((0, 1, 2), seed=0, temperature=1.0), num_shown).run(policy, sized)


def num_bytes(result: PictureFeatures) -> int:
    return len(pickle.dumps(result, protocol=5))


def test_the_pictures_are_judged_by_the_names_of_the_classes_that_were_asked_for(
    policy: PolicyModule, models: EvaluationModels, tmp_path: Path
) -> None:
    section = reward_models(tmp_path).model_dump(mode="json") | {"class_prompt": "the digit {}"}
    recipe = with_changes(models.recipe, {"reward_models": section, "evaluation.scores": ["clip", "aesthetic"]})
    models = replace(models, recipe=recipe)
    generate = GenerateChunk((7, 8, 12), seed=5, temperature=0.5)
    result, drawn = (chunk.run(policy, models) for chunk in (FeaturesChunk(generate), generate))
    pixels_NCHW = torch.from_numpy(drawn.pixels_NHWC).permute(0, 3, 1, 2).float() / 255
    prompts = ["the digit 7", "the digit 8", "the digit 2"]
    assert list(result.preferences) == ["clip", "aesthetic"]
    for name, values_N in result.preferences.items():
        expected_N = RewardModels(recipe, CPU).judge(name).judge(pixels_NCHW, prompts)
        np.testing.assert_allclose(values_N, expected_N, atol=1e-4)
    other = models.judging.preferences(drawn.pixels_NHWC, ["the digit 1"] * 3)
    assert np.abs(result.preferences["clip"] - other["clip"]).max() > 0.01
