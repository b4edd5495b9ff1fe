"""What credit by gradient cannot be combined with: refused in a line, with what to change."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.config.load import with_changes
from common.config.recipe import Recipe

GRADIENT = {"advantage.credit": "gradient"}
OWN = {"reward.python": {"tests.own_terms:term": 1.0}}
NO_GRADIENT = {"reward.mse": 0, "reward.lpips": 0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"group.size": 1},
            "group.size is 1 and advantage.credit is sample, which compares the samples of a group:",
        ),
        ({"group.size": 1, "advantage.credit": "token"}, "advantage.credit is token, which compares"),
        ({"advantage.curvature": 0.5}, "advantage.curvature is 0.5, which is for advantage.credit gradient"),
        ({"advantage.scale": "place"}, "advantage.scale is place, which is for advantage.credit gradient, and"),
        (GRADIENT | NO_GRADIENT, "no weighed term of the reward has one (none): give reward.mse,"),
        (GRADIENT | NO_GRADIENT | OWN, "no weighed term of the reward has one (term): give reward.mse,"),
        (GRADIENT | OWN | {"group.size": 1}, "group.size is 1, but reward.python names term, without a gradient"),
        (GRADIENT | {"profile": "published"}, "set profile=corrected, or advantage.credit=sample"),
        (GRADIENT | {"advantage.mix": 0.5}, "advantage.mix is 0.5, which is for advantage.credit token, and"),
        (GRADIENT | {"advantage.radius": 0}, "leave advantage.radius out, or set another advantage.credit"),
        (GRADIENT | {"advantage.normalize_std": False}, "advantage.normalize_std is false, which is for terms"),
        (GRADIENT | {"learner.correction": "truncated"}, "all of these have a gradient (there is no ratio)"),
        (GRADIENT | {"learner.ratio": "sequence"}, "learner.ratio is sequence, which is for terms that samples"),
    ],
)
def test_a_combination_that_means_nothing_is_refused_in_a_line(
    tiny_recipe: Recipe, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        with_changes(tiny_recipe, changes)
    (error,) = caught.value.errors()
    assert said in error["msg"]
    assert "\n" not in error["msg"]


@pytest.mark.parametrize(
    "changes",
    [
        {"group.size": 1},
        {"advantage.scale": "global", "advantage.curvature": 0.1},
        {"learner.prior": "kl", "group.temperature": 0.8, "group.top_k": 5},
        {"reward.mse": 0, "reward.lpips": 0, "reward.l1": 1},
        OWN | {"learner.correction": "truncated", "learner.ratio": "sequence", "advantage.normalize_std": False},
    ],
)
def test_what_means_something_is_taken(tiny_recipe: Recipe, changes: dict[str, Any]) -> None:
    assert with_changes(tiny_recipe, GRADIENT | changes).has_code_gradients


def test_samples_travel_only_where_they_are_compared(tiny_recipe: Recipe) -> None:
    def kept(**changes: Any) -> tuple[int, int]:
        recipe = with_changes(tiny_recipe, changes)
        return recipe.num_samples_kept, recipe.group_bytes

    # of 64 tokens and 4 samples: context, target, 2 numbers a kept sample; 9 of credit; two terms; class, ids
    assert kept() == (4, 4 * (64 * (2 + 2 * 4) + 4 * 2) + 4 + 280)
    assert kept(**GRADIENT) == (1, 4 * (64 * (2 + 2 + 9) + 4 * 2) + 4 + 280)
    assert kept(**GRADIENT, **OWN) == (4, 4 * (64 * (2 + 8 + 9) + 4 * 3) + 4 + 280)
