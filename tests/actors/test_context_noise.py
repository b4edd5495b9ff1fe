"""The noisy teacher-forcing context."""

import pytest
import torch
from torch import Tensor

from actors.context_noise import noisy_context

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
