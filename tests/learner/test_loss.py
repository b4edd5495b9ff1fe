"""The policy loss and the cross-entropy prior, by hand.

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

from math import log

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.config.algorithm import LearnerSection
from learner.loss import (
    ce_prior,
    decoupled_loss,
    importance_ratio,
    kl_prior,
    kl_to_behaviour,
    policy_loss,
    surrogate_loss,
    truncated_loss,
)

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


def section(correction: str) -> LearnerSection:
    return LearnerSection(num_steps=1, correction=correction, ratio_cap=2)


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight"),
    [
        (0.25, 2.0, 0.25),  # what the policy would hardly do by now counts little
        (0.25, -2.0, 0.25),
        (1.5, 2.0, 1.5),  # beyond the clip range, and still with a gradient
        (1.5, -2.0, 1.5),
        (8.0, 2.0, 2.0),  # at most the cap
        (8.0, -2.0, 2.0),
    ],
)
@pytest.mark.parametrize("correction", ["truncated", "decoupled"])
def test_in_a_step_of_one_update_a_correction_weights_the_gradient_with_the_truncated_ratio(
    correction: str, ratio: float, advantage: float, weight: float
) -> None:
    new_logprob = torch.tensor(log(0.5), requires_grad=True)
    behaviour_BGT = torch.tensor([[[log(0.5 / ratio)]]])
    loss_B, ratio_BGT = surrogate_loss(
        new_logprob.view(1, 1, 1), behaviour_BGT, torch.tensor([[advantage]]), section(correction)
    )
    loss_B.sum().backward()
    assert ratio_BGT.item() == pytest.approx(ratio)
    assert new_logprob.grad is not None
    assert (loss_B.item(), new_logprob.grad.item()) == pytest.approx((-weight * advantage, -weight * advantage))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "derivative"),
    [
        (1.1, 2.0, -1.1, -1.1),  # inside the range: -A w r
        (1.5, 2.0, -1.2, 0.0),  # moved far enough from the proximal policy: clipped at 1.2
        (0.5, -2.0, 0.8, 0.0),
        (1.5, -2.0, 1.5, 1.5),
    ],
)
def test_decoupled_clips_around_the_proximal_policy_and_weights_with_its_ratio_to_the_behaviour(
    ratio: float, advantage: float, loss: float, derivative: float
) -> None:
    proximal = 0.25
    new_logprob = torch.tensor(log(proximal * ratio), requires_grad=True)
    loss_B, ratio_BGT = decoupled_loss(
        new_logprob.view(1, 1, 1),
        torch.tensor([[[log(proximal)]]]),
        torch.tensor([[[log(0.5)]]]),  # the weight is 0.25 / 0.5
        torch.tensor([[advantage]]),
        clip_range=0.2,
        cap=2.0,
    )
    loss_B.sum().backward()
    assert ratio_BGT.item() == pytest.approx(0.5 * ratio)
    assert new_logprob.grad is not None
    assert (loss_B.item(), new_logprob.grad.item()) == pytest.approx((loss, derivative), abs=1e-6)


def test_a_truncated_loss_is_the_mean_over_samples_and_tokens_of_each_group() -> None:
    logprobs_BGT = torch.full((2, 2, 2), 0.25).log()
    behaviour_BGT = torch.tensor([[[0.25, 0.25], [0.25, 0.5]], [[0.25, 0.25], [0.25, 0.01]]]).log()
    loss_B, _ = truncated_loss(logprobs_BGT, behaviour_BGT, torch.tensor([[1.0, -1.0], [3.0, 2.0]]), cap=2.0)
    # group 0: (-1 - 1 + 1 + 0.5) / 4. Group 1: (-3 - 3 - 2 - 2 · 2) / 4.
    assert_close(loss_B, torch.tensor([-0.125, -3.0]))


@pytest.mark.parametrize("correction", ["truncated", "decoupled"])
def test_on_policy_every_correction_has_the_loss_and_the_gradient_of_none(correction: str) -> None:
    results = []
    for name in ("none", correction):
        logits_BTV = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        logprobs_BGT = torch.log_softmax(logits_BTV, -1)[:, :, :2].mT
        advantages_BG = torch.tensor([[1.0, -0.5], [-2.0, 3.0]])
        loss_B, _ = surrogate_loss(logprobs_BGT, logprobs_BGT.detach(), advantages_BG, section(name))
        loss_B.sum().backward()
        assert logits_BTV.grad is not None
        results.append((loss_B, logits_BTV.grad))
    assert results[0][1].abs().max() > 0.1
    assert_close(results[0], results[1], rtol=0, atol=1e-6)


def test_the_kl_estimate_is_zero_on_policy_never_negative_and_outside_the_graph() -> None:
    behaviour_BGT = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]).log()
    policy_BGT = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.25], [0.5, 0.5]]]).log().requires_grad_()
    kl_B = kl_to_behaviour(policy_BGT, behaviour_BGT)
    assert kl_B.tolist() == pytest.approx([0, (2 - 1 - log(2) + 0.5 - 1 - log(0.5)) / 4])
    assert not kl_B.requires_grad


def test_the_kl_estimate_is_right_on_average() -> None:
    behaviour_V, policy_V = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.2, 0.4, 0.4]).log()
    exact = float((behaviour_V.exp() * (behaviour_V - policy_V)).sum())
    samples = torch.tensor([0, 0, 1, 2])  # as often as the behaviour policy draws them
    kl_B = kl_to_behaviour(policy_V[samples].view(1, 1, 4), behaviour_V[samples].view(1, 1, 4))
    assert kl_B.item() == pytest.approx(exact)


def test_the_ratio_of_a_sample_is_the_geometric_mean_of_its_tokens_at_each_of_them() -> None:
    logprobs_BGT = torch.tensor([[[0.5, 0.5], [0.2, 0.4]]]).log()
    behaviour_BGT = torch.tensor([[[0.25, 0.125], [0.2, 0.4]]]).log()
    assert_close(importance_ratio(logprobs_BGT, behaviour_BGT, "token"), torch.tensor([[[2.0, 4.0], [1.0, 1.0]]]))
    root8 = 8**0.5
    assert_close(
        importance_ratio(logprobs_BGT, behaviour_BGT, "sequence"), torch.tensor([[[root8, root8], [1.0, 1.0]]])
    )


@pytest.mark.parametrize("correction", ["none", "truncated", "decoupled"])
def test_with_one_advantage_a_sample_the_gradient_is_that_of_the_ratio_of_the_sample(correction: str) -> None:
    """The textbook form of GSPO, with one number a sample: the exponential of the mean log-ratio."""
    draws = torch.Generator().manual_seed(0)
    logprobs_BGT = (-1 - 0.05 * torch.rand(2, 3, 4, generator=draws)).requires_grad_()
    behaviour_BGT = -1 - 0.05 * torch.rand(2, 3, 4, generator=draws)
    advantages_BG = torch.randn(2, 3, generator=draws)
    ratio_BG = (logprobs_BGT - behaviour_BGT).mean(-1).exp()  # within the clip and below the cap
    (expected_BGT,) = torch.autograd.grad((-advantages_BG * ratio_BG).mean(1).sum(), logprobs_BGT)
    settings = LearnerSection(num_steps=1, correction=correction, ratio="sequence")
    loss_B, _ = surrogate_loss(logprobs_BGT, behaviour_BGT, advantages_BG, settings)
    (gradient_BGT,) = torch.autograd.grad(loss_B.sum(), logprobs_BGT)
    assert_close(gradient_BGT, expected_BGT)
    assert_close(loss_B, (-advantages_BG * ratio_BG).mean(1))


def test_the_tokens_of_a_sample_keep_their_own_credit_under_its_ratio() -> None:
    logprobs_BGT = torch.tensor([[[0.5, 0.5]]]).log().requires_grad_()
    loss_B, _ = policy_loss(
        logprobs_BGT, logprobs_BGT.detach(), torch.tensor([[[1.0, -2.0]]]), 0.2, unit="sequence"
    )
    loss_B.sum().backward()
    assert_close(logprobs_BGT.grad, torch.tensor([[[-0.5, 1.0]]]))


def test_an_advantage_of_its_own_moves_each_token() -> None:
    logprobs_BGT = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]).log().requires_grad_()
    advantages_BGT = torch.tensor([[[1.0, -2.0], [0.0, 3.0]]])
    loss_B, _ = policy_loss(logprobs_BGT, logprobs_BGT.detach(), advantages_BGT, 0.2)
    loss_B.sum().backward()
    assert loss_B.tolist() == [-0.5]
    assert_close(logprobs_BGT.grad, -advantages_BGT / 4)


def test_the_kl_prior_is_zero_at_the_reference_and_right_on_average_elsewhere() -> None:
    policy_V, reference_V = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.2, 0.4, 0.4]).log()
    exact = float((policy_V.exp() * (policy_V - reference_V)).sum())
    samples = torch.tensor([0, 0, 1, 2])  # as often as the policy draws them
    logprobs_BGT = policy_V[samples].view(1, 1, 4).requires_grad_()
    kl_B = kl_prior(logprobs_BGT, reference_V[samples].view(1, 1, 4))
    assert kl_B.item() == pytest.approx(exact)
    kl_B.sum().backward()
    # (1 - π_ref / π) / 4: down where the policy gives more than the reference, up where it gives less
    assert_close(logprobs_BGT.grad, torch.tensor([[[0.15, 0.15, -0.15, -0.15]]]))
    assert kl_prior(logprobs_BGT, logprobs_BGT.detach()).tolist() == [0.0]
