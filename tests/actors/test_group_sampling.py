"""G samples a group under one forward. Letters: B images, G samples a group, T tokens, V codebook entries."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from actors.group_sampling import sample_groups
from common.token_distribution import TokenDistribution

PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05])
WHOLE = TokenDistribution()


def as_is(logits_TV: Tensor) -> Tensor:
    """A head for hidden states that are logits already."""
    return logits_TV


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def frequencies(temperature: float) -> Tensor:
    """Shares [2, V] of the tokens at two positions, the second with the probabilities in reverse."""
    logits_BTV = torch.stack([PROBABILITIES.log(), PROBABILITIES.flip(0).log()])[None]
    tokens_BGT, _ = sample_groups(as_is, logits_BTV, 40_000, TokenDistribution(temperature), generators(0))
    return torch.stack([tokens_BGT[0, :, position].bincount(minlength=4) / 40_000 for position in (0, 1)])


def test_tokens_come_as_often_as_the_softmax_says() -> None:
    expected = torch.stack([PROBABILITIES, PROBABILITIES.flip(0)])
    assert_close(frequencies(temperature=1.0), expected, rtol=0, atol=0.01)  # four standard deviations


def test_a_temperature_of_a_half_squares_the_odds() -> None:
    squared = torch.tensor([0.68493, 0.24658, 0.06164, 0.00685])  # 0.25, 0.09, 0.0225, 0.0025 over 0.365
    expected = torch.stack([squared, squared.flip(0)])
    assert_close(frequencies(temperature=0.5), expected, rtol=0, atol=0.01)


def test_shapes_and_types() -> None:
    tokens_BGT, logprobs_BGT = sample_groups(as_is, logits(2, 5, 7), 3, WHOLE, generators(1, 2))
    assert tokens_BGT.shape == logprobs_BGT.shape == (2, 3, 5)
    assert tokens_BGT.dtype == torch.int64
    assert logprobs_BGT.dtype == torch.float32


def test_samples_positions_and_images_are_drawn_independently() -> None:
    tokens_BGT, _ = sample_groups(as_is, torch.zeros(2, 64, 1000), 2, WHOLE, generators(1, 2))
    assert len(tokens_BGT.unique()) > 200  # of 256 draws from 1000 codes


def test_equal_seeds_draw_equal_tokens_whatever_else_is_in_the_batch() -> None:
    logits_BTV = logits(4, 16, 30)
    together_BGT, together_logprobs_BGT = sample_groups(as_is, logits_BTV, 8, WHOLE, generators(10, 11, 12, 13))
    reordered_BGT, reordered_logprobs_BGT = sample_groups(as_is, logits_BTV[[2, 0]], 8, WHOLE, generators(12, 10))
    assert reordered_BGT.equal(together_BGT[[2, 0]])
    assert reordered_logprobs_BGT.equal(together_logprobs_BGT[[2, 0]])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_behaviour_log_probabilities_are_those_of_the_drawn_tokens(temperature: float) -> None:
    logits_BTV = logits(2, 5, 7)
    tokens_BGT, logprobs_BGT = sample_groups(
        as_is, logits_BTV, 3, TokenDistribution(temperature), generators(1, 2)
    )
    expected_BTV = (logits_BTV / temperature).log_softmax(-1)
    for image in range(2):
        for sample in range(3):
            for position in range(5):
                token = tokens_BGT[image, sample, position]
                assert_close(logprobs_BGT[image, sample, position], expected_BTV[image, position, token])


def test_log_probabilities_of_bfloat16_logits_are_float32() -> None:
    logits_BTV = logits(1, 5, 7).bfloat16()
    tokens_BGT, logprobs_BGT = sample_groups(as_is, logits_BTV, 3, WHOLE, generators(1))
    expected_BTV = logits_BTV.float().log_softmax(-1)
    assert_close(logprobs_BGT[0].T, expected_BTV[0].gather(1, tokens_BGT[0].T))


def test_the_head_sees_one_image_at_a_time() -> None:
    seen = []

    def head(hidden_TD: Tensor) -> Tensor:
        seen.append(hidden_TD.shape)
        return torch.cat([hidden_TD, -hidden_TD], dim=-1)

    tokens_BGT, _ = sample_groups(head, logits(3, 5, 7), 2, WHOLE, generators(1, 2, 3))
    assert seen == [(5, 7)] * 3
    assert tokens_BGT.max() > 6


@pytest.mark.parametrize(("top_k", "top_p"), [(2, 1.0), (0, 0.7), (2, 0.7)])
def test_the_most_likely_tokens_alone_are_drawn_with_the_odds_they_have_among_each_other(
    top_k: int, top_p: float
) -> None:
    logits_BTV = PROBABILITIES.log()[None, None]
    distribution = TokenDistribution(1.0, top_k, top_p)
    tokens_BGT, logprobs_BGT = sample_groups(as_is, logits_BTV, 40_000, distribution, generators(0))
    shares = tokens_BGT.flatten().bincount(minlength=4) / 40_000
    assert_close(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), rtol=0, atol=0.01)
    assert_close(logprobs_BGT.exp(), torch.tensor([0.625, 0.375])[tokens_BGT])


def test_the_temperature_comes_before_the_filter() -> None:
    # at a half: 0.685, 0.247, 0.062, 0.007, so that 0.6 of the probability is the first token alone
    distribution = TokenDistribution(0.5, top_p=0.6)
    tokens_BGT, _ = sample_groups(as_is, PROBABILITIES.log()[None, None], 1000, distribution, generators(0))
    assert not tokens_BGT.any()
