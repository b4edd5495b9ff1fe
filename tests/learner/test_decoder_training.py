"""The decoder's training, against a loss that is written out, and by what it does to the pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

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


@pytest.mark.parametrize("section", [{}, {"clean_weight": 0.5, "anchor_weight": 3.0}])
def test_the_loss_and_its_gradient_are_those_of_each_sample_s_picture_on_its_own(
    recipe: Recipe, groups: GroupBatch, section: dict[str, float]
) -> None:
    recipe = with_changes(recipe, {"decoder": section})
    trainer = Trainer(load_trained(recipe, CPU), recipe, CPU)
    with torch.no_grad():  # away from where it began
        trainer.model.decoder.conv_out.bias.add_(0.3)
    sums, norm = trainer.train(groups, StageClock())

    tokenizer, initial = load_tokenizer(recipe, CPU).requires_grad_(True), load_tokenizer(recipe, CPU)
    with torch.no_grad():
        tokenizer.decoder.conv_out.bias.add_(0.3)

    def distance(one: Tensor, other: Tensor) -> Tensor:
        return 0.5 * (one - other).square().mean() + 2 * (one - other).abs().mean()

    first, total = 0.0, torch.zeros(())
    for b in range(B):
        image = torch.from_numpy(groups.source["pixels"][b] / 127.5 - 1).float().permute(2, 0, 1)
        for k in range(K):
            sample_1T = torch.from_numpy(groups.sampled_tokens_BGT[b, k]).long()[None]
            picture = tokenizer.decode(sample_1T)[0]
            first += distance(picture, image).item() / (B * K)
            anchor = section.get("anchor_weight", 0) * distance(picture, initial.decode(sample_1T)[0])
            total = total + (distance(picture, image) + anchor) / (B * K)
        clean = tokenizer.decode(torch.from_numpy(groups.target_tokens_BT[b]).long()[None])[0]
        total = total + section.get("clean_weight", 0) * distance(clean, image) / B
    trained = [*tokenizer.decoder.parameters(), *tokenizer.post_quant_conv.parameters()]
    gradients = torch.autograd.grad(total, trained)
    report = sums.report(1, norm, {})
    assert report.loss == pytest.approx(total.item(), rel=1e-5)
    assert report.policy_loss == -report.reward_mean == pytest.approx(first, rel=1e-5)
    assert norm == pytest.approx(torch.cat([each.flatten() for each in gradients]).norm().item(), rel=1e-4)


def test_it_learns_to_draw_the_images_from_these_codes(recipe: Recipe, groups: GroupBatch) -> None:
    recipe = with_changes(recipe, {"learner.lr": 3e-3, "reward.mse": 1, "reward.l1": 0})
    trainer = Trainer(load_trained(recipe, CPU), recipe, CPU)
    errors = [trainer.train(groups, StageClock())[0].report(1, 0.0, {}).reward_terms["mse"] for _ in range(15)]
    assert errors[-1] < 0.9 * errors[0]
