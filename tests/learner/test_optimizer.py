"""AdamW as the paper sets it, by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.config.algorithm import LearnerSection
from learner.optimizer import build_optimizer, load_optimizer_arrays, optimizer_arrays

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


def stepped(slopes: list[float]) -> tuple[TwoParameters, torch.optim.AdamW]:
    model = TwoParameters()
    optimizer = build_optimizer(model, SECTION)
    for slope in slopes:
        descend(model, optimizer, slope)
    return model, optimizer


def descend(model: TwoParameters, optimizer: torch.optim.AdamW, slope: float) -> None:
    optimizer.zero_grad()
    model.loss(slope).backward()
    optimizer.step()


def test_an_optimizer_with_the_state_of_another_goes_on_as_that_one_would() -> None:
    model, optimizer = stepped([1.0, -2.0, 3.0])
    arrays = optimizer_arrays(optimizer, model)
    assert sorted(arrays) == [
        f"{name}.{key}" for name in ("attention_norm", "linear") for key in ("exp_avg", "exp_avg_sq", "step")
    ]
    for array in arrays.values():
        array.setflags(write=False)  # as a checkpoint or the object store gives them
    resumed = TwoParameters()
    resumed.load_state_dict(model.state_dict())
    other = build_optimizer(resumed, SECTION)
    load_optimizer_arrays(other, resumed, arrays)
    for slope in (-1.0, 2.0):
        descend(model, optimizer, slope)
        descend(resumed, other, slope)
    assert resumed.linear.equal(model.linear)
    assert resumed.attention_norm.equal(model.attention_norm)


def test_the_arrays_of_a_cpu_are_the_optimizers_own_memory_and_no_copy() -> None:
    model, optimizer = stepped([1.0])
    arrays = optimizer_arrays(optimizer, model)
    descend(model, optimizer, 5.0)
    assert all(np.array_equal(array, optimizer_arrays(optimizer, model)[name]) for name, array in arrays.items())


def test_before_the_first_step_there_is_no_state_to_keep_or_to_load() -> None:
    model, optimizer = stepped([])
    assert optimizer_arrays(optimizer, model) == {}
    load_optimizer_arrays(optimizer, model, {})
    assert optimizer.state == {}


def test_the_state_of_another_model_is_refused_by_the_name_that_it_lacks() -> None:
    model, optimizer = stepped([1.0])
    arrays = {name: array for name, array in optimizer_arrays(optimizer, model).items() if "linear" not in name}
    with pytest.raises(ValueError, match="the optimizer state has nothing for linear"):
        load_optimizer_arrays(build_optimizer(model, SECTION), model, arrays)
