"""Group-relative advantages, by hand."""

import pytest
import torch
from torch.testing import assert_close

from common.config.algorithm import RewardSection
from learner.advantage import group_advantages, rewards


def test_a_reward_is_the_negative_weighted_sum_of_its_terms() -> None:
    section = RewardSection(mse_weight=2, lpips_weight=0.5)
    rewards_BG = rewards(torch.tensor([[0.25, 0.0]]), torch.tensor([[1.0, 3.0]]), section)
    assert rewards_BG.tolist() == [[-1.0, -1.5]]


def test_two_samples_have_advantages_of_plus_and_minus_one_over_root_two() -> None:
    advantages_BG = group_advantages(torch.tensor([[1.0, 3.0], [-0.01, -0.02]]), clip=5.0)
    assert_close(advantages_BG, torch.tensor([[-0.70711, 0.70711], [0.70711, -0.70711]]), rtol=0, atol=1e-4)


def test_the_standard_deviation_is_the_unbiased_one() -> None:
    # mean 2, squared deviations 4 + 0 + 4 + 0 + 0, over 4: std √2
    advantages_BG = group_advantages(torch.tensor([[0.0, 2.0, 4.0, 2.0, 2.0]]), clip=5.0)
    assert_close(advantages_BG, torch.tensor([[-1.41421, 0.0, 1.41421, 0.0, 0.0]]), rtol=0, atol=1e-5)


def test_groups_do_not_see_each_other() -> None:
    rewards_BG = torch.tensor([[1.0, 2.0, 4.0], [100.0, 300.0, 200.0]])
    together_BG = group_advantages(rewards_BG, clip=5.0)
    assert together_BG[1].tolist() == pytest.approx([-1, 1, 0])
    assert group_advantages(rewards_BG[:1], clip=5.0).equal(together_BG[:1])


def test_equal_rewards_teach_nothing() -> None:
    assert group_advantages(torch.full((1, 8), -0.125), clip=5.0).tolist() == [[0.0] * 8]


def test_advantages_are_clamped_on_both_sides() -> None:
    rewards_BG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    advantages_BG = group_advantages(rewards_BG, clip=1.0)  # unclamped: ±1.5, and ∓0.5 for the rest
    assert_close(advantages_BG, torch.tensor([[1.0, -0.5, -0.5, -0.5], [-1.0, 0.5, 0.5, 0.5]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "largest"), [(8, 2.4749), (27, 5.0), (64, 5.0)])
def test_a_clip_of_five_acts_from_27_samples_on(size: int, largest: float) -> None:
    rewards_BG = torch.zeros(1, size)
    rewards_BG[0, 0] = 1
    assert float(group_advantages(rewards_BG, clip=5.0).max()) == pytest.approx(largest, abs=1e-3)
    unclipped = (size - 1) / size**0.5
    assert (unclipped > 5) == (size >= 27)
