"""A reward actor with real models in the test's own process: which weights it rolls out with, and from where."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from actors.rollout_actor import RolloutActor, WeightsLostError
from common.config.recipe import Recipe
from common.models.loading import load_policy
from common.schema import from_table
from common.types import WorkTicket
from common.weights.snapshot import linear_parameters, take_snapshot
from tests.fakes import FakeRay, Reference

BFLOAT16 = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16"}
TICKET = WorkTicket(0, (0, 1))


class CountsGets(FakeRay):
    num_gets = 0

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        self.num_gets += 1
        return super().get(reference, timeout)


@pytest.fixture
def ray() -> CountsGets:
    return CountsGets()


@pytest.fixture
def actor(small_run: Callable[..., Recipe], ray: CountsGets) -> RolloutActor:
    return RolloutActor(small_run("run"), "actor-0", calls=ray)


def weights_of(recipe: Recipe, ray: FakeRay, version: int, scale: float) -> list[Reference]:
    """The recipe's policy with its head made `scale`, as the learner publishes it."""
    policy = load_policy(recipe, torch.device("cpu"))
    with torch.no_grad():
        policy.output.weight.copy_(torch.randn(policy.output.weight.shape, generator=_draws()) * scale)
    narrow = linear_parameters(policy) if recipe.has_narrow_weights else ()
    return [ray.put(take_snapshot(policy, version, narrow))]


def _draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def logprobs(actor: RolloutActor, version: int, snapshot: list[Reference]) -> Any:
    receipt, table = actor.roll_out(TICKET, version, snapshot)
    assert receipt.policy_version == version
    return from_table(table).behaviour_logprobs_BGT


def test_the_first_version_is_what_everybody_has_loaded_and_is_not_sent(
    actor: RolloutActor, ray: CountsGets
) -> None:
    receipt, _ = actor.roll_out(TICKET, 0, [Reference()])
    assert (receipt.policy_version, ray.num_gets, "transfer" in receipt.stage_seconds) == (0, 0, False)


def test_weights_are_fetched_once_ahead_or_with_the_ticket(
    actor: RolloutActor, ray: CountsGets, small_run: Callable[..., Recipe]
) -> None:
    recipe = small_run("run")
    first, second = weights_of(recipe, ray, 1, 0.1), weights_of(recipe, ray, 2, 5.0)
    flat = logprobs(actor, 1, first)
    assert ray.num_gets == 1
    actor.fetch_ahead(2, second)
    assert ray.num_gets == 2
    assert (logprobs(actor, 1, first) == flat).all()  # what waits changes nothing
    peaked = logprobs(actor, 2, second)
    assert ray.num_gets == 2
    assert peaked.mean() > flat.mean() + 1
    assert (logprobs(actor, 1, first) == flat).all()  # an evaluation may look back
    assert ray.num_gets == 3


def test_weights_that_are_lost_are_the_tickets_error_and_not_that_of_fetching_ahead(
    actor: RolloutActor, ray: CountsGets, small_run: Callable[..., Recipe]
) -> None:
    snapshot = weights_of(small_run("run"), ray, 4, 1.0)
    ray.lose(snapshot[0])
    actor.fetch_ahead(4, snapshot)
    with pytest.raises(WeightsLostError, match="policy version 4 was lost with a node"):
        actor.roll_out(TICKET, 4, snapshot)


def test_under_autocast_narrow_weights_give_the_same_groups_bit_for_bit(
    ray: CountsGets, small_run: Callable[..., Recipe]
) -> None:
    """sampling.autocast decides whether the actor holds narrow weights, and no ticket asks for it."""
    narrow = small_run("run", BFLOAT16)
    wide = small_run("run", BFLOAT16 | {"sampling.autocast": "none"})
    assert (narrow.has_narrow_weights, wide.has_narrow_weights) == (True, False)
    sent, found = [], []
    for recipe in (narrow, wide):
        actor = RolloutActor(recipe, "actor-0", calls=ray)
        snapshot = weights_of(recipe, ray, 1, 2.0)
        sent.append(snapshot[0].value.num_bytes)
        found.append((logprobs(actor, 0, []), logprobs(actor, 1, snapshot)))
    assert sent[0] < 0.8 * sent[1]
    for one, other in zip(*found, strict=True):
        assert (one == other).all()
    assert (found[0][0] != found[0][1]).any()
