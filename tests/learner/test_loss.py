"""The policy loss and the cross-entropy prior, by hand.

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

from math import log

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from learner.loss import ce_prior, policy_loss

LOG_QUARTERS = torch.tensor([0.5, 0.25, 0.25]).log()


def one_token(ratio: float, advantage: float) -> tuple[float, float]:
    """Loss of one group with one sample of one token, and its derivative by that token's log-probability."""
    new_logprob = torch.tensor(log(0.5), requires_grad=True)
    behaviour_BGT = torch.tensor([[[log(0.5 / ratio)]]])
    loss_B, ratio_BGT = policy_loss(
        new_logprob.view(1, 1, 1), behaviour_BGT, torch.tensor([[advantage]]), clip_range=0.2
    )
    assert ratio_BGT.item() == pytest.approx(ratio)
    loss_B.sum().backward()
    assert new_logprob.grad is not None
    return loss_B.item(), new_logprob.grad.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "derivative"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside the range: -A ρ
        (1.1, -2.0, 2.2, 2.2),
        (1.5, 2.0, -2.4, 0.0),  # good and already more likely: clipped at 1.2, no gradient
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely: clipped at 0.8, no gradient
        (0.5, 2.0, -1.0, -1.0),  # good but less likely: not clipped
        (1.5, -2.0, 3.0, 3.0),  # bad but more likely: not clipped
    ],
)
def test_the_ratio_is_clipped_only_where_the_step_has_gone_far_enough(
    ratio: float, advantage: float, loss: float, derivative: float
) -> None:
    assert one_token(ratio, advantage) == pytest.approx((loss, derivative), abs=1e-6)


def on_policy(logits_BTV: Tensor, advantages_BG: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The loss where the behaviour policy is the policy itself; samples draw tokens 0 and 1."""
    logprobs_BGT = torch.log_softmax(logits_BTV / temperature, -1)[:, :, :2].mT
    return policy_loss(logprobs_BGT, logprobs_BGT.detach(), advantages_BG, 0.2)


def test_on_policy_the_loss_is_zero_and_the_gradient_is_not() -> None:
    logits_BTV = LOG_QUARTERS.view(1, 1, 3).clone().requires_grad_()
    loss_B, ratio_BGT = on_policy(logits_BTV, torch.tensor([[1.0, -1.0]]))
    assert ratio_BGT.tolist() == [[[1.0], [1.0]]]
    assert loss_B.tolist() == [0.0]
    loss_B.sum().backward()
    # -A/2 (onehot - softmax), summed over the two samples: the softmax terms cancel
    assert_close(logits_BTV.grad, torch.tensor([[[-0.5, 0.5, 0.0]]]))


def test_zero_advantages_give_no_gradient() -> None:
    logits_BTV = LOG_QUARTERS.view(1, 1, 3).clone().requires_grad_()
    loss_B, _ = on_policy(logits_BTV, torch.zeros(1, 2))
    loss_B.sum().backward()
    assert_close(logits_BTV.grad, torch.zeros(1, 1, 3))


def test_the_policy_loss_is_the_mean_over_samples_and_tokens_of_each_group() -> None:
    logprobs_BGT = torch.full((2, 2, 2), 0.25).log()
    behaviour_BGT = torch.tensor([[[0.25, 0.25], [0.25, 0.5]], [[0.25, 0.25], [0.25, 0.25]]]).log()
    advantages_BG = torch.tensor([[1.0, -1.0], [3.0, 0.0]])
    loss_B, ratio_BGT = policy_loss(logprobs_BGT, behaviour_BGT, advantages_BG, 0.2)
    assert_close(ratio_BGT, torch.tensor([[[1.0, 1.0], [1.0, 0.5]], [[1.0, 1.0], [1.0, 1.0]]]))
    # group 0: (-1 - 1 + 1 + 0.8) / 4; the last is clipped at 0.8. Group 1: (-3 - 3 + 0 + 0) / 4.
    assert_close(loss_B, torch.tensor([-0.05, -1.5]))


def test_the_prior_is_the_mean_negative_log_probability_of_the_targets() -> None:
    prior_B = ce_prior(torch.tensor([[0.5, 0.25], [0.2, 0.2]]).log())
    # group 0: (ln 2 + ln 4) / 2; group 1: ln 5
    assert_close(prior_B, torch.tensor([1.03972, 1.60944]), rtol=0, atol=1e-5)
