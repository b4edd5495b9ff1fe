"""Group-relative advantages, by hand."""

import pytest
import torch
from torch.testing import assert_close

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.reward_terms import RewardTerms
from learner.advantage import advantages, flat_groups, group_advantages, smoothed


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
    rewards_BG = torch.linspace(-1, 0, 100)[:, None].expand(-1, 7).contiguous()  # whose means are rounded
    assert (rewards_BG.mean(dim=1) != rewards_BG[:, 0]).any()
    for normalize_std in (True, False):
        assert not group_advantages(rewards_BG, 5.0, normalize_std).any()


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


def test_without_the_standard_deviation_an_advantage_is_the_distance_to_the_mean() -> None:
    advantages_BG = group_advantages(torch.tensor([[1.0, 3.0, 8.0]]), clip=3.5, normalize_std=False)
    assert advantages_BG.tolist() == [[-3.0, -1.0, 3.5]]


def test_smoothing_means_over_the_neighbours_that_exist() -> None:
    map_BGT = torch.tensor([[[9.0, 0, 0, 0, 0, 0, 0, 0, 18.0]]])  # two corners of a 3 x 3 grid
    assert smoothed(map_BGT, 0).equal(map_BGT)
    # over 4 tokens in a corner, 6 on an edge, 9 in the middle
    expected = [9 / 4, 9 / 6, 0, 9 / 6, 27 / 9, 18 / 6, 0, 18 / 6, 18 / 4]
    assert smoothed(map_BGT, 1)[0, 0].tolist() == pytest.approx(expected)
    assert smoothed(map_BGT, 5)[0, 0].tolist() == pytest.approx([3.0] * 9)


def terms_of_two_tokens_squared() -> RewardTerms:
    """One group of two samples of 2 x 2 tokens: the first is better at token 0, the second at the others."""
    map_BGT = torch.tensor([[[0.0, 4.0, 4.0, 4.0], [8.0, 0.0, 0.0, 1.0]]])
    nothing_BGT = torch.zeros_like(map_BGT)
    maps = {"mse": map_BGT, "lpips": nothing_BGT}
    return RewardTerms((1, 2), {name: term_BGT.mean(-1) for name, term_BGT in maps.items()}, maps)


def credit(recipe: Recipe, **keys) -> torch.Tensor:
    changes = {f"advantage.{key}": value for key, value in {"credit": "token", **keys}.items()}
    return advantages(terms_of_two_tokens_squared(), with_changes(recipe, changes))


def test_a_token_is_compared_with_the_same_place_of_the_other_samples(tiny_recipe: Recipe) -> None:
    half = 0.70711
    assert_close(
        credit(tiny_recipe, radius=0),
        torch.tensor([[[half, -half, -half, -half], [-half, half, half, half]]]),
        rtol=0,
        atol=1e-4,
    )
    without = credit(tiny_recipe, radius=0, normalize_std=False)
    assert without.tolist() == [[[4.0, -2.0, -2.0, -1.5], [-4.0, 2.0, 2.0, 1.5]]]


def test_under_a_radius_of_the_whole_grid_every_token_has_the_advantage_of_its_sample(tiny_recipe: Recipe) -> None:
    sample_BG = credit(tiny_recipe, credit="sample")
    assert sample_BG.shape == (1, 2)
    assert_close(credit(tiny_recipe, radius=2), sample_BG[:, :, None].expand(1, 2, 4))


def test_mix_is_the_share_of_the_advantage_of_the_sample(tiny_recipe: Recipe) -> None:
    token_BGT, sample_BG = credit(tiny_recipe, radius=0), credit(tiny_recipe, credit="sample")
    assert sample_BG[0, 0] < 0 < token_BGT[0, 0, 0]
    quarter_BGT = credit(tiny_recipe, radius=0, mix=0.25)
    assert_close(quarter_BGT, 0.75 * token_BGT + 0.25 * sample_BG[:, :, None])
    assert credit(tiny_recipe, radius=0, mix=1.0).equal(sample_BG[:, :, None].expand(1, 2, 4))


def test_token_credit_is_clamped_like_that_of_samples(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"learner.advantage_clip": 0.5})
    assert credit(recipe, radius=0).abs().max() == 0.5


def test_groups_without_maps_cannot_be_learned_from_by_token(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"advantage.credit": "token"})
    with pytest.raises(
        RecipeError, match=r"recorded without reward maps: record them with advantage\.credit=token"
    ):
        advantages(RewardTerms((1, 2), {"mse": torch.zeros(1, 2), "lpips": torch.zeros(1, 2)}), recipe)


def test_a_group_is_flat_where_no_sample_and_no_token_of_one_is_better_than_the_others(
    tiny_recipe: Recipe,
) -> None:
    uneven, alike, places = [1.0, 2.0], [0.3, 0.3], [[4.0, 0, 0, 0], [0, 0, 4.0, 0]]
    rewards_BG = torch.tensor([uneven, alike, alike])
    assert flat_groups(group_advantages(rewards_BG, clip=5.0)).tolist() == [False, True, True]
    map_BGT = torch.stack([torch.tensor(places), torch.full((2, 4), 0.3)])
    terms = RewardTerms((2, 2), {"mse": map_BGT.mean(-1)}, {"mse": map_BGT})
    changes = {"reward.lpips": 0, "advantage.radius": 0}
    by_sample = with_changes(tiny_recipe, changes)
    assert flat_groups(advantages(terms, by_sample)).tolist() == [True, True]
    by_token = with_changes(by_sample, {"advantage.credit": "token"})
    assert flat_groups(advantages(terms, by_token)).tolist() == [False, True]


def test_a_group_with_dropped_samples_is_the_group_of_the_others() -> None:
    rewards_BG = torch.tensor([[1.0, 9.0, 2.0, 4.0], [3.0, 5.0, 5.0, 1.0], [2.0, 2.0, 7.0, 2.0]])
    dropped_BG = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    advantages_BG = group_advantages(rewards_BG, 5.0, dropped_BG=dropped_BG)
    alone_BG = group_advantages(torch.tensor([[1.0, 2.0, 4.0]]), 5.0)
    assert_close(advantages_BG[0], torch.tensor([alone_BG[0, 0], 0, alone_BG[0, 1], alone_BG[0, 2]]))
    assert_close(advantages_BG[1:2], group_advantages(rewards_BG[1:2], 5.0))
    assert advantages_BG[2].tolist() == [0, 0, 0, 0]  # what is left is flat
    of_maps_BGT = group_advantages(rewards_BG[:, :, None].expand(-1, -1, 2), 5.0, dropped_BG=dropped_BG)
    assert_close(of_maps_BGT, advantages_BG[:, :, None].expand(-1, -1, 2))
