"""The straight-through estimator, against its closed form and against a loss that is computed without it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.config.methods import SteSection
from common.seeding import generator
from learner.straight_through import straight_through

T, V, D = 4, 7, 3  # tokens, entries, numbers of a code


def draw() -> torch.Generator:
    return generator(3, "noise", 5)


def gumbel() -> Tensor:
    return -torch.empty(T, V).exponential_(generator=draw()).log()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("section", [SteSection(), SteSection(tau=0.5), SteSection(sample="gumbel", tau=2.0)])
def test_the_gradient_is_the_closed_form_on_a_linear_decoder(section: SteSection) -> None:
    codes_VD, decoder, image = numbers(V, D, seed=1), numbers(T * D, 20, seed=2), numbers(20, seed=3)
    logits_TV = (3 * numbers(T, V, seed=4)).requires_grad_()
    codes_TD, _, _ = straight_through(
        lambda hidden: hidden, codes_VD, section, draw, logits_TV, torch.zeros(T).long()
    )
    loss = (codes_TD.flatten() @ decoder - image).square().mean()
    (gradient_TV,) = torch.autograd.grad(loss, logits_TV)

    scores_TV = logits_TV.detach() + (gumbel() if section.sample == "gumbel" else 0)
    taken_TD = codes_VD[scores_TV.argmax(dim=1)]
    residual = taken_TD.flatten() @ decoder - image
    slope_TD = (decoder @ residual * 2 / 20).view(T, D)
    p_TV = (scores_TV / section.tau).softmax(dim=1)
    expected_TV = torch.zeros(T, V)
    for t in range(T):
        mean_D = sum(p_TV[t, v] * codes_VD[v] for v in range(V))
        for v in range(V):
            expected_TV[t, v] = p_TV[t, v] / section.tau * (codes_VD[v] - mean_D) @ slope_TD[t]
    assert loss.item() == pytest.approx(residual.square().mean().item(), rel=1e-5)
    torch.testing.assert_close(gradient_TV, expected_TV, rtol=1e-4, atol=1e-6)


def test_the_code_is_exactly_an_entry_of_the_codebook() -> None:
    codes_VD, logits_TV = numbers(V, D, seed=1), numbers(T, V, seed=4)
    for section in (SteSection(), SteSection(sample="gumbel")):
        codes_TD, _, _ = straight_through(
            lambda hidden: hidden, codes_VD, section, draw, logits_TV, torch.zeros(T).long()
        )
        assert all(any(code_D.equal(row_D) for row_D in codes_VD) for code_D in codes_TD)


def test_a_drawn_code_is_a_draw_from_the_policy() -> None:
    logits_V, num = torch.tensor([0.0, 1.0, 2.0]), 20_000
    codes, _, _ = straight_through(
        lambda hidden: hidden,
        torch.eye(3),
        SteSection(sample="gumbel"),
        lambda: torch.Generator().manual_seed(0),
        logits_V.expand(num, 3),
        torch.zeros(num).long(),
    )
    assert codes.mean(dim=0).tolist() == pytest.approx(logits_V.softmax(0).tolist(), abs=0.015)


def test_log_probabilities_and_entropy_are_those_of_the_policy_itself_without_noise_or_tau() -> None:
    head: Callable[[Tensor], Tensor] = lambda hidden: hidden  # noqa: E731
    logits_TV = torch.tensor([[math.log(1), math.log(3), -torch.inf]])
    section = SteSection(sample="gumbel", tau=0.1)
    _, targets, entropy = straight_through(
        head, torch.eye(3), section, draw, logits_TV.clamp(min=-1e30), torch.tensor([1])
    )
    assert targets.tolist() == pytest.approx([math.log(0.75)])
    assert entropy.tolist() == pytest.approx([-0.25 * math.log(0.25) - 0.75 * math.log(0.75)])
