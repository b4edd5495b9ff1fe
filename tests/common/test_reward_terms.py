"""What samples are worth: terms by name, weighed by hand.

Letters: B groups, G samples per group, T image tokens.
"""

import pytest
import torch

from common.errors import RecipeError, RewardError
from common.reward_terms import RewardTerms

MSE, LPIPS, L1 = torch.tensor([[0.25, 0.0]]), torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.25]])


def test_a_reward_is_the_negative_weighted_sum_of_its_terms() -> None:
    terms = RewardTerms((1, 2), {"mse": MSE, "lpips": LPIPS})
    assert terms.rewards({"mse": 2, "lpips": 0.5}).tolist() == [[-1.0, -1.5]]


def test_the_absolute_error_counts_by_its_weight() -> None:
    terms = RewardTerms((1, 2), {"mse": MSE, "lpips": LPIPS, "l1": L1})
    assert terms.rewards({"mse": 1, "l1": 2}).tolist() == [[-1.25, -0.5]]


def test_a_term_of_which_more_is_better_adds_to_the_reward_and_to_its_map() -> None:
    likeness_BG, map_BGT = torch.tensor([[0.5, 2.0]]), torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])
    terms = RewardTerms(
        (1, 2),
        {"mse": MSE, "likeness": likeness_BG},
        {"mse": torch.zeros(1, 2, 2), "likeness": map_BGT},
        higher_is_better=frozenset({"likeness"}),
    )
    assert terms.rewards({"mse": 2, "likeness": 3}).tolist() == [[1.0, 6.0]]  # -2 · 0.25 + 3 · 0.5; 3 · 2
    reward_map_BGT = terms.reward_map({"mse": 2, "likeness": 3})
    assert reward_map_BGT is not None
    assert reward_map_BGT.tolist() == [[[3.0, 0.0], [9.0, 3.0]]]


def test_without_weights_every_reward_is_zero_whatever_was_measured() -> None:
    assert RewardTerms((2, 3)).rewards({}).tolist() == [[0.0] * 3] * 2
    assert RewardTerms((1, 2), {"mse": MSE}).rewards({}).tolist() == [[0.0, 0.0]]


def test_a_weight_on_a_term_that_was_not_measured_is_refused_by_its_key() -> None:
    with pytest.raises(RecipeError) as caught:
        RewardTerms((1, 2), {"mse": MSE, "l1": L1}).rewards({"mse": 1, "lpips": 0.5})
    assert str(caught.value) == (
        "reward.lpips has the weight 0.5, and these groups hold mse, l1: set its weight to 0, or record groups "
        "with it"
    )
    with pytest.raises(RecipeError, match=r"reward\.mse has the weight 1, and these groups hold no terms"):
        RewardTerms((1, 2)).rewards({"mse": 1})


def test_there_is_no_reward_map_without_the_maps_of_terms() -> None:
    assert RewardTerms((1, 2), {"mse": MSE}).reward_map({"mse": 1}) is None


def test_parts_are_joined_in_order_with_their_failures() -> None:
    good = RewardTerms((1, 2), {"mse": MSE}, {"mse": torch.zeros(1, 2, 4)}, frozenset({"x"}))
    bad = RewardTerms((2, 2), {"mse": L1.expand(2, 2)}, {"mse": torch.ones(2, 2, 4)}, frozenset({"x"}), {1: "why"})
    joined = RewardTerms.joined([good, bad])
    assert joined.shape_BG == (3, 2)
    assert joined.terms["mse"].tolist() == [[0.25, 0.0], [0.5, 0.25], [0.5, 0.25]]
    assert joined.maps["mse"].shape == (3, 2, 4)
    assert joined.failures == {2: "why"}
    assert joined.higher_is_better == {"x"}


def test_who_cannot_leave_a_group_out_stops_at_a_term_that_failed_or_gave_no_number() -> None:
    RewardTerms((1, 2), {"mse": MSE}).require_whole()
    with pytest.raises(RewardError, match=r"^why$"):
        RewardTerms((2, 2), {"mse": MSE.expand(2, 2)}, failures={1: "why"}).require_whole()
    with pytest.raises(RewardError, match=r"^reward\.l1 gave a number that is not finite$"):
        RewardTerms((1, 2), {"mse": MSE, "l1": torch.tensor([[0.5, float("nan")]])}).require_whole()
