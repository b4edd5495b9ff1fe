"""The decoder's training, against a loss that is written out, and by what it does to the pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_tokenizer, load_trained
from common.schema import GroupBatch
from learner.train_step import Trainer

CPU = torch.device("cpu")
B, K, T = 3, 2, 64


@pytest.fixture
def recipe(tiny_recipe: Recipe, tiny_weights: Path) -> Recipe:
    changes = {
        "learner.method": "decoder",
        "tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors"),
        "group.size": K,
        "reward.lpips": 0,
        "reward.mse": 0.5,
        "reward.l1": 2,
    }
    return with_changes(tiny_recipe, changes)


@pytest.fixture
def groups() -> GroupBatch:
    draws = np.random.default_rng(0)
    return GroupBatch(
        sample_index_B=np.arange(B),
        image_id_B=("a", "b", "c"),
        policy_version=0,
        codebook_size=20,
        context_tokens_BT=np.zeros((B, T - 1), np.int32),
        target_tokens_BT=np.zeros((B, T), np.int32),
        sampled_tokens_BGT=draws.integers(20, size=(B, K, T)).astype(np.int32),
        behaviour_logprobs_BGT=np.zeros((B, K, T), np.float32),
        condition={"label": np.zeros(B, np.int64)},
        reward_terms={},
        source={"pixels": draws.integers(256, size=(B, 32, 32, 3)).astype(np.uint8)},
    )


def test_the_loss_and_its_gradient_are_those_of_each_sample_s_picture_on_its_own(
    recipe: Recipe, groups: GroupBatch
) -> None:
    trainer = Trainer(load_trained(recipe, CPU), recipe, CPU)
    sums, norm = trainer.train(groups, StageClock())

    tokenizer = load_tokenizer(recipe, CPU).requires_grad_(True)
    total = torch.zeros(())
    for b in range(B):
        image = torch.from_numpy(groups.source["pixels"][b] / 127.5 - 1).float().permute(2, 0, 1)
        for k in range(K):
            picture = tokenizer.decode(torch.from_numpy(groups.sampled_tokens_BGT[b, k]).long()[None])[0]
            error = 0.5 * (picture - image).square().mean() + 2 * (picture - image).abs().mean()
            total = total + error / (B * K)
    trained = [*tokenizer.decoder.parameters(), *tokenizer.post_quant_conv.parameters()]
    gradients = torch.autograd.grad(total, trained)
    report = sums.report(1, norm, {})
    assert report.loss == report.policy_loss == pytest.approx(total.item(), rel=1e-5)
    assert report.reward_mean == pytest.approx(-total.item(), rel=1e-5)
    assert norm == pytest.approx(torch.cat([each.flatten() for each in gradients]).norm().item(), rel=1e-4)


def test_it_learns_to_draw_the_images_from_these_codes(recipe: Recipe, groups: GroupBatch) -> None:
    recipe = with_changes(recipe, {"learner.lr": 3e-3, "reward.mse": 1, "reward.l1": 0})
    trainer = Trainer(load_trained(recipe, CPU), recipe, CPU)
    errors = [trainer.train(groups, StageClock())[0].report(1, 0.0, {}).reward_terms["mse"] for _ in range(15)]
    assert errors[-1] < 0.9 * errors[0]
