"""Credit by gradient in the learner, against sums over all codebook entries made by hand.

Letters: B groups, T image tokens, N rows, V codebook entries, D numbers of a code.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.code_credit import CodeCredit
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.token_distribution import TokenDistribution
from learner.code_prices import CodePrices, code_prices
from learner.token_logprobs import TokenLogprobs, token_logprobs

B, T, V, D = 4, 9, 7, 3
WHOLE = TokenDistribution()


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CODES_VD = drawn(V, D, seed=0)
CREDIT = CodeCredit(drawn(B, T, D, seed=1), drawn(B, T, D, seed=2), drawn(B, T, seed=3).abs() + 0.1)
LOGITS_BTV = drawn(B, T, V, seed=4)
ALL = torch.ones(B)


def prices(recipe: Recipe, credit: CodeCredit = CREDIT, weights_B: Tensor = ALL, **changes: Any) -> CodePrices:
    named = {f"advantage.{key}" if key != "clip" else "learner.advantage_clip": v for key, v in changes.items()}
    return code_prices(credit, CODES_VD, with_changes(recipe, {"advantage.credit": "gradient"} | named), weights_B)


def learned(
    priced: CodePrices | None, distribution: TokenDistribution = WHOLE, rows_at_once: int = 1000
) -> tuple[TokenLogprobs, Tensor]:
    """What the learner gets, and the gradient of the policy loss, summed over groups, in the logits."""
    logits_BTV = LOGITS_BTV.clone().requires_grad_()
    tokens_BT = torch.zeros(B, T, dtype=torch.long)
    got = token_logprobs(
        lambda hidden: hidden, logits_BTV, tokens_BT[:, None], tokens_BT, distribution, rows_at_once, priced
    )
    if got.advantage_BT is not None:
        (-got.advantage_BT.mean(dim=1).sum()).backward()
    return got, logits_BTV.grad if logits_BTV.grad is not None else torch.zeros_like(LOGITS_BTV)


def by_hand(probabilities_BTV: Tensor, advantages_BTV: Tensor) -> Tensor:
    """The gradient of -mean_t Σ_v π(v) A(v) in the logits of a softmax."""
    mean_BT1 = (probabilities_BTV * advantages_BTV).sum(dim=-1, keepdim=True)
    return -probabilities_BTV * (advantages_BTV - mean_BT1) / T


def test_the_gradient_is_the_sum_over_all_single_swaps(tiny_recipe: Recipe) -> None:
    """What each swap adds to the reward, weighed by how likely the policy makes it: nothing is sampled."""
    scale_B11 = CREDIT.spread_BT.square().mean(dim=1).sqrt()[:, None, None]
    change_BTV = torch.zeros(B, T, V)
    for entry in range(V):
        change_BTV[:, :, entry] = (CREDIT.gradient_BTD * (CODES_VD[entry] - CREDIT.mean_code_BTD)).sum(dim=-1)
    got, gradient_BTV = learned(prices(tiny_recipe, clip=1e6))
    assert_close(gradient_BTV, by_hand(LOGITS_BTV.softmax(dim=-1), change_BTV / scale_B11), rtol=1e-4, atol=1e-6)
    assert got.advantage_BT is not None
    assert_close(got.advantage_BT, torch.zeros(B, T), rtol=0, atol=1e-5)  # an advantage has no mean


@pytest.mark.parametrize("rows_at_once", [1, 5, B * T])
@pytest.mark.parametrize("distribution", [WHOLE, TokenDistribution(0.7), TokenDistribution(1.0, 3, 0.9)])
def test_some_rows_at_a_time_are_all_rows(
    tiny_recipe: Recipe, rows_at_once: int, distribution: TokenDistribution
) -> None:
    priced = prices(tiny_recipe, curvature=0.3, clip=1.0)
    (parts, gradient_BTV), (whole, whole_BTV) = (
        learned(priced, distribution, rows_at_once),
        learned(priced, distribution),
    )
    for one, other in zip(parts, whole, strict=True):
        assert_close(one, other)
    assert_close(gradient_BTV, whole_BTV)
    assert whole_BTV.abs().max() > 1e-3


def test_under_top_k_only_kept_entries_share_in_it(tiny_recipe: Recipe) -> None:
    _, gradient_BTV = learned(prices(tiny_recipe), TokenDistribution(top_k=3))
    kept_BTV = LOGITS_BTV.topk(3, dim=-1).values[:, :, -1:] <= LOGITS_BTV
    assert (gradient_BTV[~kept_BTV] == 0).all()
    assert (gradient_BTV[kept_BTV] != 0).all()


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("image", [[2.0, 2.0], [4.0, 4.0]]),  # √((2² + 2²) / 2), √((0² + 32) / 2)
        ("global", [[10**0.5] * 2] * 2),  # √((4 + 4 + 0 + 32) / 4)
        ("place", [[2.0, 2.0], [1e-8, 32**0.5]]),
    ],
)
def test_advantages_are_measured_by_the_spread_of_an_image_of_all_or_of_the_place(
    tiny_recipe: Recipe, scale: str, expected: list[list[float]]
) -> None:
    spread_BT = torch.tensor([[2.0, 2.0], [0.0, 32**0.5]])
    credit = CodeCredit(torch.ones(2, 2, D), torch.zeros(2, 2, D), spread_BT)
    got = prices(tiny_recipe, credit, torch.ones(2), scale=scale)
    assert_close(got.slope_BTD, 1 / torch.tensor(expected)[:, :, None].expand(-1, -1, D), rtol=1e-5, atol=0)


def test_the_scale_of_all_is_the_same_on_any_number_of_ranks_and_without_groups_left_out(
    tiny_recipe: Recipe,
) -> None:
    recipe = with_changes(tiny_recipe, {"advantage.credit": "gradient", "advantage.scale": "global"})
    weights_B = torch.tensor([1.0, 0.0, 1.0, 1.0])
    whole = code_prices(CREDIT, CODES_VD, recipe, weights_B)
    halves = [slice(0, 2), slice(2, 4)]
    told: list[Tensor] = []
    for half in halves:
        code_prices(cut(half), CODES_VD, recipe, weights_B[half], lambda total: told.append(total) or total)
    for half in halves:
        got = code_prices(cut(half), CODES_VD, recipe, weights_B[half], lambda _: told[0] + told[1])
        assert got.slope_BTD.equal(whole.slope_BTD[half])
    sound = CREDIT.spread_BT[weights_B > 0].square().mean().sqrt()
    assert_close(whole.slope_BTD, CREDIT.gradient_BTD / sound)


def cut(groups: slice) -> CodeCredit:
    return CodeCredit(*(column[groups] for column in vars(CREDIT).values()))


def test_the_clip_bounds_what_the_gradient_says_and_not_the_curvature(tiny_recipe: Recipe) -> None:
    probabilities_NV = LOGITS_BTV[0].softmax(dim=-1)

    def advantages(**changes: Any) -> Tensor:
        priced = prices(tiny_recipe, **changes)
        return priced.advantages(probabilities_NV, priced.slope_BTD[0], priced.mean_code_BTD[0])

    loose, clipped, bent = advantages(clip=1e6), advantages(clip=0.5), advantages(clip=0.5, curvature=2.0)
    assert loose.abs().max() > 0.5
    assert_close(clipped, loose.clamp(-0.5, 0.5))
    distances_NV = torch.cdist(CREDIT.mean_code_BTD[0], CODES_VD).square()
    mean_N1 = (probabilities_NV * distances_NV).sum(dim=-1, keepdim=True)
    assert_close(bent, clipped - 2.0 * (distances_NV - mean_N1), rtol=1e-4, atol=1e-5)


def test_with_curvature_and_no_slope_the_policy_goes_to_the_code_that_was_sampled(tiny_recipe: Recipe) -> None:
    sampled_BT = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(6))
    credit = CodeCredit(torch.zeros(B, T, D), CODES_VD[sampled_BT], torch.ones(B, T))
    _, gradient_BTV = learned(prices(tiny_recipe, credit, curvature=1.0))
    assert (gradient_BTV.gather(-1, sampled_BT[:, :, None]) < 0).all()


def test_without_prices_nothing_is_priced() -> None:
    assert learned(None)[0].advantage_BT is None
