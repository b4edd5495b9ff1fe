"""From logits to tokens. Letters: N rows, K draws a row, V codebook entries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from common.config.algorithm import GroupSection
from common.config.sampling import SamplingSection
from common.token_distribution import TokenDistribution, keep_likely

PROBABILITIES = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2])
LOGITS_NV = PROBABILITIES.log()[None]
WHOLE, COOLER = TokenDistribution(), TokenDistribution(temperature=0.5)


def kept(logits_NV: Tensor) -> list[int]:
    return logits_NV[0].isfinite().nonzero()[:, 0].tolist()


def test_a_uniform_number_picks_the_token_whose_share_it_falls_into() -> None:
    # shares end at 0.1, 0.5, 0.5, 0.8 and 1
    uniforms_NK = torch.tensor([[0.0, 0.09, 0.11, 0.49, 0.51, 0.79, 0.81, 0.999]], dtype=torch.float64)
    assert WHOLE.draw(LOGITS_NV, uniforms_NK).tolist() == [[0, 0, 1, 1, 3, 3, 4, 4]]


def test_tokens_come_as_often_as_their_probability() -> None:
    uniforms_NK = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = WHOLE.draw(LOGITS_NV, uniforms_NK)[0].bincount(minlength=5) / 100_000
    assert_close(shares, PROBABILITIES, rtol=0, atol=0.006)  # four standard deviations
    assert shares[2] == 0


def test_temperature_divides_the_logits() -> None:
    uniforms_NK = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = COOLER.draw(LOGITS_NV, uniforms_NK)[0].bincount(minlength=5) / 100_000
    assert_close(shares, PROBABILITIES**2 / (PROBABILITIES**2).sum(), rtol=0, atol=0.006)


@given(seed=st.integers(0, 2**31), size=st.integers(2, 5000))
@settings(deadline=None, max_examples=50)
def test_the_ends_of_the_interval_never_give_an_impossible_token(seed: int, size: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(1, size, generator=draws)
    logits_NV[torch.rand(1, size, generator=draws) < 0.5] = -math.inf
    logits_NV[0, seed % size] = 0.0
    tokens_NK = WHOLE.draw(logits_NV, torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64))
    assert logits_NV[0, tokens_NK[0]].isfinite().all()


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    draws = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(4, 50, generator=draws)
    uniforms_NK = torch.rand(4, 9, generator=draws, dtype=torch.float64)
    together_NK = WHOLE.draw(logits_NV, uniforms_NK)
    for row in range(4):
        alone_NK = WHOLE.draw(logits_NV[row : row + 1], uniforms_NK[row : row + 1])
        assert alone_NK[0].equal(together_NK[row])


def test_log_probabilities_are_those_of_the_tempered_softmax() -> None:
    tokens_NK = torch.tensor([[1, 3, 1]])
    assert_close(WHOLE.log_probabilities(LOGITS_NV, tokens_NK).exp(), torch.tensor([[0.4, 0.3, 0.4]]))
    assert_close(COOLER.log_probabilities(LOGITS_NV, tokens_NK).exp(), torch.tensor([[0.16, 0.09, 0.16]]) / 0.30)


def test_log_probabilities_are_float32_of_any_logits() -> None:
    for distribution in (WHOLE, TokenDistribution(top_k=2)):
        logprobs_NK = distribution.log_probabilities(LOGITS_NV.bfloat16(), torch.tensor([[0]]))
        assert logprobs_NK.dtype == torch.float32


@pytest.mark.parametrize(
    ("top_k", "tokens"), [(1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (0, [0, 1, 3, 4]), (9, [0, 1, 3, 4])]
)
def test_top_k_keeps_the_k_most_likely_tokens(top_k: int, tokens: list[int]) -> None:
    assert kept(keep_likely(LOGITS_NV, top_k=top_k)) == tokens


@pytest.mark.parametrize(
    ("top_p", "tokens"), [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.71, [1, 3, 4]), (0.95, [0, 1, 3, 4])]
)
def test_top_p_keeps_the_fewest_tokens_that_hold_the_probability(top_p: float, tokens: list[int]) -> None:
    assert kept(keep_likely(LOGITS_NV, top_p=top_p)) == tokens


def test_top_p_is_taken_of_what_top_k_leaves() -> None:
    # of 0.4 and 0.3 the first alone holds 4/7 = 0.571
    assert kept(keep_likely(LOGITS_NV, top_k=2, top_p=0.57)) == [1]
    assert kept(keep_likely(LOGITS_NV, top_k=2, top_p=0.58)) == [1, 3]


def test_what_is_kept_is_unchanged_and_the_rest_cannot_be_drawn() -> None:
    likely_NV = keep_likely(LOGITS_NV, top_k=3, top_p=0.8)
    assert likely_NV[0, kept(likely_NV)].equal(LOGITS_NV[0, kept(likely_NV)])
    uniforms_NK = torch.linspace(0, 0.9999, 101, dtype=torch.float64)[None]
    assert set(WHOLE.draw(likely_NV, uniforms_NK)[0].tolist()) == set(kept(likely_NV))
    filtered = TokenDistribution(top_k=3, top_p=0.8)
    assert filtered.draw(LOGITS_NV, uniforms_NK).equal(WHOLE.draw(likely_NV, uniforms_NK))


def test_each_row_is_cut_by_itself() -> None:
    both_NV = torch.cat([LOGITS_NV, LOGITS_NV.flip(1)])
    assert keep_likely(both_NV, top_p=0.41)[1].flip(0).equal(keep_likely(LOGITS_NV, top_p=0.41)[0])


def test_log_probabilities_within_the_most_likely_count_a_token_outside_as_kept_for_itself() -> None:
    logits_NV = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().requires_grad_()
    logprobs_NK = TokenDistribution(top_k=2).log_probabilities(logits_NV, torch.tensor([[0, 1, 2, 3]]))
    expected = torch.tensor([[0.5 / 0.8, 0.3 / 0.8, 0.15 / 0.95, 0.05 / 0.85]])
    torch.testing.assert_close(logprobs_NK.exp(), expected)
    (gradient_NV,) = torch.autograd.grad(logprobs_NK[0, 3], logits_NV)
    torch.testing.assert_close(gradient_NV, torch.tensor([[-0.5, -0.3, 0.0, 0.8]]) / 0.85)


def test_the_temperature_comes_before_the_filter_in_drawing_and_in_the_log_probabilities() -> None:
    # squared and normalised: 0.01, 0.16, 0, 0.09, 0.04 over 0.30, so that the most likely alone has a half
    cooler = TokenDistribution(temperature=0.5, top_p=0.5)
    uniforms_NK = torch.linspace(0, 0.9999, 101, dtype=torch.float64)[None]
    assert set(cooler.draw(LOGITS_NV, uniforms_NK)[0].tolist()) == {1}
    assert_close(
        cooler.log_probabilities(LOGITS_NV, torch.tensor([[1, 3]])).exp(), torch.tensor([[1.0, 0.09 / 0.25]])
    )


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (2, 1.0), (0, 0.7)])
def test_what_tokens_are_drawn_from_is_what_their_log_probabilities_are_of(top_k: int, top_p: float) -> None:
    distribution = TokenDistribution(0.8, top_k, top_p)
    uniforms_NK = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens_NK = distribution.draw(LOGITS_NV, uniforms_NK)
    seen = tokens_NK.unique()
    shares = tokens_NK[0].bincount(minlength=5)[seen] / 100_000
    probabilities = distribution.log_probabilities(LOGITS_NV, seen[None])[0].exp()
    assert_close(shares, probabilities, rtol=0, atol=0.006)
    assert_close(probabilities.sum(), torch.tensor(1.0))


def test_one_is_made_of_the_section_of_a_rollout_or_of_free_running_sampling() -> None:
    group = GroupSection(temperature=0.7, top_k=5, top_p=0.9)
    sampling = SamplingSection(temperature=0.7, top_k=5, top_p=0.9)
    assert TokenDistribution.of(group) == TokenDistribution.of(sampling) == TokenDistribution(0.7, 5, 0.9)
    assert TokenDistribution.of(GroupSection()) == WHOLE
    assert [WHOLE.is_whole, COOLER.is_whole] == [True, True]
    assert [TokenDistribution(top_k=1).is_whole, TokenDistribution(top_p=0.9).is_whole] == [False, False]
