"""Judge actors in a recipe: what they are asked for, and where there is nothing for them to judge."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.config.algorithm import NO_REWARD
from common.config.load import with_changes
from common.config.recipe import Recipe

JUDGED = {"reward.python": "tests.own_terms:term", "reward.actors.count": 2}


@pytest.mark.parametrize("changes", [{}, {"learner.method": "ste"}], ids=["mse and lpips alone", "no reward"])
def test_without_a_term_that_can_be_measured_apart_they_are_refused(
    tiny_recipe: Recipe, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as raised:
        with_changes(tiny_recipe, changes | {"reward.actors.count": 2})
    assert "reward.actors.count is 2, and no term of the reward can be measured apart: give reward.clip, " in str(
        raised.value
    )
    assert "or set reward.actors.count=0" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"reward.actors.autoscale": {"min": 3, "max": 8}},
            "reward.actors.count is 2 and reward.actors.autoscale goes from 3 to 8: start with a count between",
        ),
        (
            {"reward.actors.count": 0, "reward.actors.autoscale": {"max": 8}},
            "reward.actors.autoscale is set and reward.actors.count is 0, so there are no judge actors: set ",
        ),
    ],
)
def test_autoscaling_begins_between_its_bounds(
    tiny_recipe: Recipe, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        with_changes(tiny_recipe, JUDGED | changes)
    assert sentence in str(raised.value)


def test_a_training_with_the_prior_alone_has_none(tiny_recipe: Recipe) -> None:
    changes = JUDGED | {"reward.actors.autoscale": {"max": 3}}
    recipe = with_changes(with_changes(tiny_recipe, changes), NO_REWARD)
    assert (recipe.reward.actors.count, recipe.reward.actors.autoscale) == (0, None)
    assert recipe.reward.weights == {}


def test_of_a_step_of_both_kinds_free_running_tickets_alone_await_judges(tiny_recipe: Recipe) -> None:
    both = {"rollout": {"teacher_forced": 0.5, "free_running": 0.5}, "learner.prior": "kl"}
    recipe = with_changes(tiny_recipe, both | JUDGED)
    size = recipe.actors.images_per_ticket
    awaiting = [recipe.awaits_judges(ticket * size) for ticket in range(4)]
    assert awaiting == [recipe.kind_of(ticket * size) == "free_running" for ticket in range(4)]
    assert sorted(set(awaiting)) == [False, True]
    within = with_changes(recipe, {"reward.actors.count": 0})
    assert not any(within.awaits_judges(ticket * size) for ticket in range(4))


def test_who_is_at_work_is_said_with_them(tiny_recipe: Recipe) -> None:
    assert with_changes(tiny_recipe, JUDGED).processes == "1 reward actor, 2 judge actors and 1 learner rank"
    colocated = {"placement": "colocated", "actors.count": 0, "reward.actors.count": 1}
    said = with_changes(tiny_recipe, JUDGED | colocated).processes
    assert said == "1 judge actor and 1 learner rank that also rolls out"
