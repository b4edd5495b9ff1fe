"""AdamW as the paper sets it, by hand."""

import pytest
import torch
from torch import Tensor, nn

from common.config.algorithm import LearnerSection
from learner.optimizer import build_optimizer

SECTION = LearnerSection(num_steps=1, lr=0.01, betas=(0.9, 0.99), weight_decay=0.5)


class TwoParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.tensor([2.0]))
        self.attention_norm = nn.Parameter(torch.tensor([2.0]))

    def loss(self, slope: float) -> Tensor:
        return slope * (self.linear + self.attention_norm).sum()


def test_the_first_step_moves_by_the_rate_and_decays_all_but_norms() -> None:
    model = TwoParameters()
    optimizer = build_optimizer(model, SECTION)
    model.loss(slope=3.0).backward()
    optimizer.step()
    # the first step of Adam has the size of the rate; decay takes lr · 0.5 of the value before it
    assert model.linear.item() == pytest.approx(2.0 * (1 - 0.005) - 0.01)
    assert model.attention_norm.item() == pytest.approx(2.0 - 0.01)


def test_the_second_step_uses_both_betas() -> None:
    model = TwoParameters()
    optimizer = build_optimizer(model, SECTION)
    for slope in (1.0, -1.0):
        optimizer.zero_grad()
        model.loss(slope).backward()
        optimizer.step()
    # mean (0.1 · 0.9 - 0.1) / (1 - 0.81) = -0.052632; square (0.01 · 0.99 + 0.01) / (1 - 0.9801) = 1
    assert model.attention_norm.item() == pytest.approx(2.0 - 0.01 + 0.01 * 0.052632, abs=1e-6)


def test_frozen_parameters_are_left_out() -> None:
    model = TwoParameters()
    model.linear.requires_grad_(False)
    optimizer = build_optimizer(model, SECTION)
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 1]
