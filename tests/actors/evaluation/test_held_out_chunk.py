"""Teacher-forced scores: what a chunk measures. Letters: B images, T image tokens, V codebook entries."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from actors.evaluation.held_out import SAMPLES_SHOWN, HeldOutChunk
from actors.evaluation.models import EvaluationModels
from actors.image_batch import to_uint8
from actors.rewards.build import build_reward
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import PolicyModule, build_tokenizer
from common.pixels import to_tensor
from common.sample_order import SampleOrder
from common.schema import GroupBatch

CPU = torch.device("cpu")
SEED = 10  # in a rollout, context.condition_drop would drop some of its conditions


@pytest.fixture
def models(tiny_recipe: Recipe, tmp_path: Path) -> EvaluationModels:
    """A random tokenizer, and 6 pictures of noise in two classes of which 4 are held out."""
    draws = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(draws.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    source = {"kind": "image_folder", "path": str(tmp_path), "held_out_fraction": 0.67}
    changes = {"source": source, "reward.lpips": 0, "group.size": 6, "context.condition_drop": 0.5}
    recipe = with_changes(tiny_recipe, changes)
    torch.manual_seed(0)
    return EvaluationModels(recipe, build_tokenizer(recipe.tokenizer, image_size=32).eval(), None, CPU)


def rolled_out(policy: PolicyModule, models: EvaluationModels, *indices: int) -> GroupBatch:
    recipe = with_changes(models.recipe, {"seed": SEED, "context.condition_drop": 0.0})
    order = SampleOrder(models.recipe.seed, len(models.held_out))
    reward = build_reward(recipe.reward, models.tokenizer, None)
    pipeline = RolloutPipeline(recipe, models.held_out, models.tokenizer, reward, CPU, order)
    groups = pipeline.roll_out(policy, 0, indices, StageClock()).groups
    assert groups is not None
    return groups


def decoded(models: EvaluationModels, tokens: np.ndarray) -> Tensor:
    with torch.no_grad():
        return models.tokenizer.decode(torch.from_numpy(tokens).long())


def test_the_cross_entropy_is_the_ce_prior_given_the_noisy_context_and_the_condition(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    result = HeldOutChunk((0, 1, 2, 3), SEED).run(policy, models)
    groups = rolled_out(policy, models, 0, 1, 2, 3)
    label_B = torch.from_numpy(groups.condition["label"])
    assert models.recipe.context.condition_drop > 0, "which scores leave out"
    assert (label_B < 10).all()
    with torch.no_grad():
        logits_BTV = policy({"label": label_B}, torch.from_numpy(groups.context_tokens_BT).long())
    target_BT = torch.from_numpy(groups.target_tokens_BT).long()
    expected_BT = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), target_BT, reduction="none")
    np.testing.assert_allclose(result.cross_entropy_B, expected_BT.mean(1).numpy(), rtol=1e-4)
    with torch.no_grad():
        clean_BTV = policy({"label": label_B}, target_BT[:, :-1])
    clean_BT = torch.nn.functional.cross_entropy(clean_BTV.transpose(1, 2), target_BT, reduction="none")
    assert not np.allclose(result.cross_entropy_B, clean_BT.mean(1).numpy(), rtol=1e-3)


def test_the_reconstruction_is_the_decoded_target_against_the_source(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    result = HeldOutChunk((2, 0), SEED, num_pictures=2).run(policy, models)
    assert result.pictures is not None
    groups = rolled_out(policy, models, 2, 0)
    error_BCHW = decoded(models, groups.target_tokens_BT) - to_tensor(result.pictures.source_NHWC, CPU)
    expected_B = error_BCHW.square().mean(dim=(1, 2, 3)).numpy()
    np.testing.assert_allclose(result.reconstruction["mse"], expected_B, rtol=1e-4)
    assert expected_B[0] != expected_B[1]


def test_errors_are_measured_where_the_reward_leaves_them_out(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    usual = HeldOutChunk((0, 1), SEED).run(policy, models)
    without = EvaluationModels(with_changes(models.recipe, {"reward.mse": 0}), models.tokenizer, None, CPU)
    result = HeldOutChunk((0, 1), SEED).run(policy, without)
    np.testing.assert_array_equal(result.terms["mse"], usual.terms["mse"])
    assert (result.terms["mse"] > 0).all()
    np.testing.assert_array_equal(result.reconstruction["mse"], usual.reconstruction["mse"])


def test_scores_are_decoded_in_float32_whatever_the_reward_is(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    usual = HeldOutChunk((0, 1), SEED).run(policy, models)
    recipe = with_changes(models.recipe, {"reward.decode_dtype": "bfloat16"})
    result = HeldOutChunk((0, 1), SEED).run(policy, replace(models, recipe=recipe))
    np.testing.assert_array_equal(result.terms["mse"], usual.terms["mse"])
    np.testing.assert_array_equal(result.reconstruction["mse"], usual.reconstruction["mse"])


def test_pictures_of_the_first_images_come_where_asked_for(policy: PolicyModule, models: EvaluationModels) -> None:
    assert HeldOutChunk((0, 1, 2), SEED).run(policy, models).pictures is None
    pictures = HeldOutChunk((0, 1, 2), SEED, num_pictures=2).run(policy, models).pictures
    assert pictures is not None
    groups = rolled_out(policy, models, 0, 1, 2)
    targets, samples = groups.target_tokens_BT[:2], groups.sampled_tokens_BGT[:2, :SAMPLES_SHOWN]
    np.testing.assert_array_equal(pictures.reconstruction_NHWC, to_uint8(decoded(models, targets)))
    assert pictures.samples_NSHWC.shape == (2, SAMPLES_SHOWN, 32, 32, 3)
    for image in range(2):
        expected = to_uint8(decoded(models, samples[image]))
        difference = pictures.samples_NSHWC[image].astype(int) - expected.astype(int)
        assert np.abs(difference).max() <= 1  # sums round otherwise in another batch
    sources = [np.asarray(Image.open(name)) for name in groups_files(models, groups)]
    np.testing.assert_array_equal(pictures.source_NHWC, np.stack(sources[:2]))


def test_the_images_are_the_same_under_another_seed_and_their_draws_are_not(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    one, other = (HeldOutChunk((0, 1), seed).run(policy, models) for seed in (SEED, SEED + 1))
    np.testing.assert_array_equal(one.reconstruction["mse"], other.reconstruction["mse"])
    assert (one.terms["mse"] != other.terms["mse"]).any()


def groups_files(models: EvaluationModels, groups: GroupBatch) -> list[Path]:
    folder = Path(models.recipe.source.path)  # type: ignore[union-attr]
    return [folder / image_id for image_id in groups.image_id_B]


def test_a_broken_image_among_them_is_left_out_of_every_score(
    policy: PolicyModule, models: EvaluationModels
) -> None:
    whole = HeldOutChunk((0, 1, 2), SEED, num_pictures=3).run(policy, models)
    assert whole.pictures is not None
    (broken,) = groups_files(models, rolled_out(policy, models, 1))
    broken.write_bytes(b"no picture")
    result = HeldOutChunk((0, 1, 2), SEED, num_pictures=3).run(policy, models)
    assert result.pictures is not None
    np.testing.assert_array_equal(result.pictures.source_NHWC, whole.pictures.source_NHWC[[0, 2]])
    np.testing.assert_allclose(result.cross_entropy_B, whole.cross_entropy_B[[0, 2]], rtol=1e-4)
    ceilings = result.reconstruction["mse"], whole.reconstruction["mse"][[0, 2]]
    np.testing.assert_allclose(*ceilings, rtol=1e-4)
