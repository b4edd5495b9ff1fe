"""The decoder's training, against a loss that is written out, and by what it does to the pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_tokenizer, load_trained
from common.schema import GroupBatch
from learner.beside_decoder import PatchDiscriminator
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


BESIDE = {"decoder": {"ema_weight": 2.0, "ema_decay": 0.75, "gan_weight": 0.5, "gan_start": 2, "gan_lr": 1e-3}}


def trainer_of(recipe: Recipe, *changes: dict[str, Any]) -> Trainer:
    recipe = with_changes(recipe, {key: value for each in changes for key, value in each.items()})
    return Trainer(load_trained(recipe, CPU), recipe, CPU)


def digest(trainer: Trainer) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in trainer.model.parameters())


def test_the_average_is_that_of_all_decoders_so_far_and_samples_are_drawn_towards_its_pictures(
    recipe: Recipe, groups: GroupBatch
) -> None:
    trainer = trainer_of(recipe, {"decoder": {"ema_weight": 2.0, "ema_decay": 0.75}, "learner.lr": 1e-2})
    bias = trainer.model.decoder.conv_out.bias
    seen, losses = [bias.detach().clone()], []
    for _ in range(3):
        sums, norm = trainer.train(groups, StageClock())
        seen.append(bias.detach().clone())
        losses.append(sums.report(1, norm, {}))
    average = trainer.optimizer_arrays()["decoder average.decoder.conv_out.bias"]
    by_hand = 0.75**3 * seen[0] + 0.25 * (0.75**2 * seen[1] + 0.75 * seen[2] + seen[3])
    assert torch.from_numpy(average).allclose(by_hand, rtol=1e-5)
    assert not torch.from_numpy(average).allclose(seen[3], rtol=1e-3)
    assert losses[0].loss == pytest.approx(losses[0].policy_loss)  # it begins as the decoder

    averaged = load_tokenizer(recipe, CPU)
    state = {name.removeprefix("decoder average."): each for name, each in trainer.optimizer_arrays().items()}
    own = {name: torch.from_numpy(state[name]) for name, _ in averaged.named_parameters() if name in state}
    averaged.load_state_dict(own, strict=False)
    tokens_NT = torch.from_numpy(groups.sampled_tokens_BGT).long().flatten(0, 1)
    with torch.no_grad():
        errors = trainer.model.decode(tokens_NT) - averaged.decode(tokens_NT)
    expected = 2.0 * (0.5 * errors.square().mean() + 2 * errors.abs().mean()).item()
    report = trainer.train(groups, StageClock())[0].report(1, 0.0, {})
    assert report.loss - report.policy_loss == pytest.approx(expected, rel=1e-4)


def test_a_discriminator_s_hinge_loss_is_that_of_each_patch_on_its_own(recipe: Recipe, groups: GroupBatch) -> None:
    recipe = with_changes(recipe, {"decoder": {"gan_weight": 0.5}})
    discriminator = PatchDiscriminator(recipe, CPU)
    decoded_BKCHW, pixels_BCHW = torch.randn(B, K, 3, 32, 32, requires_grad=True), torch.randn(B, 3, 32, 32)
    decoder_B, own_B = discriminator.losses(decoded_BKCHW, pixels_BCHW)
    for b in range(B):
        scores = [discriminator(decoded_BKCHW[b, k][None])[0].tolist() for k in range(K)]
        real = discriminator(pixels_BCHW[b][None])[0].tolist()
        patches = [score for each in scores for score in each]
        assert len(real) == 9
        assert decoder_B[b].item() == pytest.approx(-0.5 * sum(patches) / len(patches), rel=1e-4)
        hinge = sum(max(0, 1 + score) for score in patches) / len(patches)
        assert own_B[b].item() == pytest.approx(hinge + sum(max(0, 1 - score) for score in real) / 9, rel=1e-4)
    decoder_B.sum().backward(retain_graph=True)
    assert decoded_BKCHW.grad is not None
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    decoded_BKCHW.grad = None
    own_B.sum().backward()
    assert decoded_BKCHW.grad is None
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_a_discriminator_learns_from_the_first_step_and_counts_from_its_own(
    recipe: Recipe, groups: GroupBatch
) -> None:
    plain, other = trainer_of(recipe), trainer_of(recipe, {"decoder": {"gan_weight": 5.0, "gan_start": 1}})
    begun = {name: array.copy() for name, array in other.optimizer_arrays().items()}
    for is_same in (True, False):
        for trainer in (plain, other):
            trainer.train(groups, StageClock())
        assert (digest(plain) == digest(other)) is is_same
        layer = "patch discriminator.layers.0.weight"
        assert not np.array_equal(begun[layer], other.optimizer_arrays()[layer])


def test_a_resumed_training_is_an_uninterrupted_one(recipe: Recipe, groups: GroupBatch) -> None:
    whole, first = trainer_of(recipe, BESIDE), trainer_of(recipe, BESIDE)
    for _ in range(4):
        whole.train(groups, StageClock())
    for _ in range(2):
        first.train(groups, StageClock())
    resumed = trainer_of(recipe, BESIDE)
    resumed.model.load_state_dict(first.model.state_dict())
    resumed.load_optimizer_arrays({name: array.copy() for name, array in first.optimizer_arrays().items()})
    resumed.step = first.step
    for _ in range(2):
        resumed.train(groups, StageClock())
    assert digest(resumed) == digest(whole)
    assert digest(resumed) != digest(first)
    arrays, others = resumed.optimizer_arrays(), whole.optimizer_arrays()
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)


def test_two_ranks_average_the_discriminator_s_gradients(recipe: Recipe, groups: GroupBatch) -> None:
    """A rank that has two of three groups, and one that has the third: summed by hand, they step as one rank."""
    recipe = with_changes(recipe, {"decoder": {"gan_weight": 0.5}})
    decoded_BKCHW, pixels_BCHW = torch.randn(B, K, 3, 32, 32), torch.randn(B, 3, 32, 32)

    def gradients(part: slice, scale: float) -> PatchDiscriminator:
        rank = PatchDiscriminator(recipe, CPU)
        (rank.losses(decoded_BKCHW[part], pixels_BCHW[part])[1].sum() * scale).backward()
        return rank

    alone = gradients(slice(None), 1 / B)
    ranks = [gradients(part, 2 / B) for part in (slice(0, 2), slice(2, 3))]
    other = iter([parameter.grad.clone() for parameter in ranks[1].parameters() if parameter.grad is not None])
    ranks[0].update(lambda gradient: gradient + next(other), 2)
    alone.update(lambda gradient: gradient, 1)
    for ours, theirs in zip(ranks[0].parameters(), alone.parameters(), strict=True):
        assert ours.allclose(theirs, atol=1e-6)


def test_it_learns_to_draw_the_images_from_these_codes(recipe: Recipe, groups: GroupBatch) -> None:
    recipe = with_changes(recipe, {"learner.lr": 3e-3, "reward.mse": 1, "reward.l1": 0})
    trainer = Trainer(load_trained(recipe, CPU), recipe, CPU)
    errors = [trainer.train(groups, StageClock())[0].report(1, 0.0, {}).reward_terms["mse"] for _ in range(15)]
    assert errors[-1] < 0.9 * errors[0]
