"""A ticket, a step, a snapshot and free-running pictures keep to their budgets."""

import pytest

from tests.fake_cuda.gpu import fake_cuda
from tests.on_a_gpu_that_is_not_there.budgets import TICKET_SYNCS, check_budgets, keep_within
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.runs import Actor, Rank
from tests.on_a_gpu_that_is_not_there.variants import BFLOAT16, VARIANTS


@pytest.mark.parametrize("changes", [{}, BFLOAT16], ids=["float32", "bfloat16"])
def test_a_run_keeps_to_its_budgets(recipe_of: Recipes, changes: dict) -> None:
    with fake_cuda() as counts:
        recipe = recipe_of(changes, "cuda")
        check_budgets(Actor(recipe), Rank(recipe), counts)


@pytest.mark.parametrize(
    ("name", "syncs"),
    [
        ("credit by token, of three terms", TICKET_SYNCS + 6),  # two more terms, and the maps of four
        ("credit by gradient", TICKET_SYNCS + 3),  # gradient, mean code, spread
        ("captions", TICKET_SYNCS + 1),  # features and mask in the place of a label
    ],
)
def test_what_a_recipe_adds_to_a_ticket_is_an_array_each(recipe_of: Recipes, name: str, syncs: int) -> None:
    with fake_cuda() as counts:
        actor = Actor(recipe_of(VARIANTS[name], "cuda"))
        counts.reset()
        actor.roll_out()
        keep_within(counts.syncs, syncs, "waits in a ticket")
