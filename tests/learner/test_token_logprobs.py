"""Log-probabilities by chunks of rows.

Letters: B groups, G samples a group, T image tokens, D width of hidden states, V codebook entries.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from actors.group_sampling import sample_groups
from common.token_distribution import TokenDistribution
from learner import token_logprobs as module
from learner.token_logprobs import token_logprobs

B, G, T, D, V = 2, 3, 5, 4, 7


@pytest.fixture
def tensors() -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """Head, hidden states [B, T, D], samples [B, G, T], targets [B, T]."""
    torch.manual_seed(0)
    samples_BGT, targets_BT = torch.randint(V, (B, G, T)), torch.randint(V, (B, T))
    return nn.Linear(D, V), torch.randn(B, T, D, requires_grad=True), samples_BGT, targets_BT


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("rows_at_once", [1, 4, 100])
def test_values_and_gradients_are_those_of_the_whole(tensors, temperature: float, rows_at_once: int) -> None:
    head, hidden_BTD, samples_BGT, targets_BT = tensors
    logits_BTV = head(hidden_BTD)
    at_temperature_BTV = (logits_BTV / temperature).log_softmax(-1)
    expected_BGT = at_temperature_BTV.gather(2, samples_BGT.mT).mT
    expected_BT = logits_BTV.log_softmax(-1).gather(2, targets_BT[..., None])[..., 0]
    weights_BGT = torch.randn(B, G, T)
    inputs = [hidden_BTD, *head.parameters()]
    expected_gradients = torch.autograd.grad((expected_BGT * weights_BGT).sum() + expected_BT.sum(), inputs)

    logprobs = token_logprobs(
        head, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(temperature), rows_at_once
    )
    assert_close(logprobs.samples_BGT, expected_BGT)
    assert_close(logprobs.targets_BT, expected_BT)
    loss = (logprobs.samples_BGT * weights_BGT).sum() + logprobs.targets_BT.sum()
    for gradient, expected in zip(torch.autograd.grad(loss, inputs), expected_gradients, strict=True):
        assert_close(gradient, expected)


@pytest.mark.parametrize(("rows_at_once", "calls"), [(4, 3 + 3), (10, 1)])
def test_no_more_logits_than_asked_for_and_made_again_only_where_it_saves(
    tensors, rows_at_once: int, calls: int
) -> None:
    head, hidden_BTD, samples_BGT, targets_BT = tensors
    rows = []

    def counting(hidden_ND: Tensor) -> Tensor:
        rows.append(len(hidden_ND))
        return head(hidden_ND)

    logprobs = token_logprobs(counting, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(), rows_at_once)
    logprobs.samples_BGT.sum().backward()
    assert len(rows) == calls
    assert max(rows) <= rows_at_once


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("rows_at_once", [4, 100])
def test_the_entropy_is_that_of_the_sampling_distribution_and_no_part_of_the_gradient(
    tensors, temperature: float, rows_at_once: int
) -> None:
    head, hidden_BTD, samples_BGT, targets_BT = tensors
    logprobs = token_logprobs(
        head, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(temperature), rows_at_once
    )
    expected_BT = torch.distributions.Categorical(logits=head(hidden_BTD) / temperature).entropy()
    assert_close(logprobs.entropy_BT, expected_BT)
    assert not logprobs.entropy_BT.requires_grad


def test_measuring_the_entropy_leaves_every_bit_of_the_gradient(tensors) -> None:
    head, hidden_BTD, samples_BGT, targets_BT = tensors
    inputs = [hidden_BTD, *head.parameters()]
    tokens_NK = torch.cat([samples_BGT.mT.flatten(0, 1), targets_BT.view(-1, 1)], dim=1)
    expected = torch.autograd.grad(
        TokenDistribution().log_probabilities(head(hidden_BTD.flatten(0, 1)), tokens_NK).sum(), inputs
    )
    logprobs = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(), rows_at_once=100)
    loss = torch.cat([logprobs.samples_BGT.mT, logprobs.targets_BT[..., None]], dim=2).sum()
    for gradient, without in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        assert gradient.equal(without)


def test_the_backward_pass_does_not_measure_the_entropy_again(tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    head, hidden_BTD, samples_BGT, targets_BT = tensors
    measured = []
    monkeypatch.setattr(module, "entropy", lambda logprobs_NV: measured.append(1) or logprobs_NV[:, 0].detach())
    logprobs = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(), rows_at_once=4)
    (logprobs.samples_BGT.sum() + logprobs.targets_BT.sum()).backward()
    assert len(measured) == 3


@pytest.mark.parametrize("rows_at_once", [4, 100])
def test_within_the_most_likely_the_learner_has_the_probabilities_that_samples_were_drawn_with(
    tensors, rows_at_once: int
) -> None:
    head, hidden_BTD, _, targets_BT = tensors
    draws = [torch.Generator().manual_seed(seed) for seed in range(B)]
    likely = TokenDistribution(0.8, top_k=3)
    samples_BGT, behaviour_BGT = sample_groups(head, hidden_BTD.detach(), G, likely, draws)
    logprobs = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, likely, rows_at_once)
    assert_close(logprobs.samples_BGT, behaviour_BGT)
    everything = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, TokenDistribution(0.8), rows_at_once)
    assert (logprobs.samples_BGT > everything.samples_BGT + 0.01).all()
    assert_close(logprobs.targets_BT, everything.targets_BT)
    likely_BTV = (head(hidden_BTD) / 0.8).topk(3).values
    assert_close(logprobs.entropy_BT, torch.distributions.Categorical(logits=likely_BTV).entropy())
    (gradient,) = torch.autograd.grad(logprobs.samples_BGT.sum(), [hidden_BTD])
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.01
