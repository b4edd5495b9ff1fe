"""The yardstick of the prior alone is a recipe of its own."""

from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.scoring.before_after import prior_alone


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 4),
        ({"advantage.credit": "token", "advantage.mix": 0.5}, 4),
        (
            {
                "advantage.credit": "gradient",
                "advantage.scale": "place",
                "advantage.curvature": 1,
                "group.size": 1,
            },
            2,
        ),
    ],
)
def test_the_prior_alone_is_trained_under_any_credit_of_the_run(
    tiny_recipe: Recipe, changes: dict[str, Any], size: int
) -> None:
    recipe = prior_alone(with_changes(tiny_recipe, changes))
    assert (recipe.reward.weights, recipe.advantage.credit, recipe.group.size) == ({}, "sample", size)
