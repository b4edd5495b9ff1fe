"""Log-probabilities by chunks of rows.

Letters: B groups, G samples a group, T image tokens, D width of hidden states, V codebook entries.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

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

    logprobs = token_logprobs(head, hidden_BTD, samples_BGT, targets_BT, temperature, rows_at_once)
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

    logprobs = token_logprobs(counting, hidden_BTD, samples_BGT, targets_BT, 1.0, rows_at_once)
    logprobs.samples_BGT.sum().backward()
    assert len(rows) == calls
    assert max(rows) <= rows_at_once
