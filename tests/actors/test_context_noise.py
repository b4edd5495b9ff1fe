"""The noisy teacher-forcing context."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.context_noise import ContextNoise, noisy_context
from common.config.load import with_changes
from common.config.recipe import Recipe

NUM_CODES = 50


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def target(num_images: int, num_tokens: int) -> Tensor:
    """Ids that no draw can give, so that a replaced token shows."""
    return torch.arange(num_tokens).repeat(num_images, 1) + NUM_CODES


def test_without_noise_the_context_is_all_target_tokens_but_the_last() -> None:
    context_BT = noisy_context(torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]]), [0.0, 0.0], NUM_CODES, generators(0, 1))
    assert context_BT.tolist() == [[3, 1, 4], [5, 9, 2]]


def test_the_target_tokens_are_left_alone() -> None:
    target_BT = target(1, 4)
    noisy_context(target_BT, [1.0], NUM_CODES, generators(0))
    assert target_BT.tolist() == [[50, 51, 52, 53]]


@pytest.mark.parametrize("noise", [0.25, 0.9])
def test_the_asked_share_of_tokens_is_replaced(noise: float) -> None:
    context_BT = noisy_context(target(1, 20_001), [noise], NUM_CODES, generators(0))
    replaced = context_BT < NUM_CODES
    assert replaced.float().mean().item() == pytest.approx(noise, abs=0.015)
    assert context_BT[~replaced].equal(target(1, 20_001)[:, :-1][~replaced])


def test_replacements_are_uniform_over_the_codebook() -> None:
    context_BT = noisy_context(target(1, 50_001), [1.0], NUM_CODES, generators(0))
    counts_V = context_BT.flatten().bincount(minlength=NUM_CODES)
    assert len(counts_V) == NUM_CODES
    assert (counts_V - 1000).abs().max() < 130  # four standard deviations of 1000 draws each


def test_an_image_draws_the_same_noise_alone_as_in_a_batch() -> None:
    together_BT = noisy_context(target(3, 65), [0.5] * 3, NUM_CODES, generators(7, 8, 9))
    alone_BT = noisy_context(target(1, 65), [0.5], NUM_CODES, generators(8))
    assert alone_BT[0].equal(together_BT[1])
    assert not together_BT[0].equal(together_BT[1])


def test_a_generator_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        noisy_context(target(2, 4), [0.5] * 2, NUM_CODES, generators(0))


def test_each_image_has_its_own_noise() -> None:
    context_BT = noisy_context(target(3, 65), [0.0, 0.5, 1.0], NUM_CODES, generators(7, 8, 9))
    assert [(row_T < NUM_CODES).float().mean().item() for row_T in context_BT] == pytest.approx(
        [0, 0.5, 1], abs=0.2
    )
    assert context_BT[1].equal(noisy_context(target(1, 65), [0.5], NUM_CODES, generators(8))[0])


def test_kernel_other_never_gives_a_token_back_and_is_uniform_over_the_others() -> None:
    target_BT = torch.full((1, 50_001), 7)
    context_BT = noisy_context(target_BT, [1.0], NUM_CODES, generators(0), "other")
    counts_V = context_BT.flatten().bincount(minlength=NUM_CODES)
    assert counts_V[7] == 0
    others = torch.cat([counts_V[:7], counts_V[8:]])
    assert len(others) == NUM_CODES - 1
    assert (others - 50_000 / 49).abs().max() < 130


def test_kernel_self_takes_what_is_proposed_in_the_replaced_places_alone() -> None:
    proposals_BT = torch.arange(64)[None] + 1000
    context_BT = noisy_context(target(1, 65), [0.5], NUM_CODES, generators(3), "self", proposals_BT)
    replaced = context_BT >= 1000
    uniform_BT = noisy_context(target(1, 65), [0.5], NUM_CODES, generators(3))
    assert replaced.equal(uniform_BT < NUM_CODES)
    assert context_BT[replaced].equal(proposals_BT[replaced])
    assert context_BT[~replaced].equal(target(1, 65)[:, :-1][~replaced])


class KnowsTheNext(torch.nn.Module):
    """Proposes the token that its context has at the same place, plus one; certain of it."""

    def forward(self, condition: dict, context_BT: Tensor, head: bool = True) -> Tensor:
        assert not head
        previous_BT = F.pad(context_BT, (1, 0))
        return F.one_hot(previous_BT + 1, 200).float() * 1e4

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


def test_under_kernel_self_a_token_becomes_what_the_policy_says_at_its_own_place_given_the_clean_context(
    tiny_recipe: Recipe,
) -> None:
    recipe = with_changes(tiny_recipe, {"context.kernel": "self", "context.noise": 1.0})
    target_BT = torch.tensor([[10, 20, 30, 40]])
    context_BT = ContextNoise.of(recipe).context(KnowsTheNext(), {}, target_BT, 200, 0, [0])
    assert context_BT.tolist() == [[1, 11, 21]]


def test_a_noise_of_its_own_for_each_sequence_is_uniform_and_comes_from_the_sample_alone(
    tiny_recipe: Recipe,
) -> None:
    recipe = with_changes(tiny_recipe, {"context.noise_per_sequence": True, "context.noise": 0.8})
    noise, indices = ContextNoise.of(recipe), list(range(400))

    def context(indices: list[int]) -> Tensor:
        return noise.context(KnowsTheNext(), {}, target(len(indices), 201), NUM_CODES, 5, indices)

    shares = (context(indices) < NUM_CODES).float().mean(dim=1)
    assert shares.mean().item() == pytest.approx(0.4, abs=0.03)
    assert shares.std().item() == pytest.approx(0.8 / 12**0.5, abs=0.03)
    assert context([7, 3])[1].equal(context(indices)[3])
