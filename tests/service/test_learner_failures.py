"""Learner ranks that die, and steps that go wrong: the weights are those of an undisturbed group.

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError, DivergedError, LearnerLostError
from common.facts import RankJoined, RankLost
from common.ray_calls_group import RayCalls
from common.schema import GroupBatch, to_table
from common.types import StepReport
from common.weights.snapshot import tensors_of
from learner.learner_actor import LearnerActor
from learner.learner_group import LearnerGroup
from tests.conftest import TINY_RECIPE
from tests.fakes import FakeRay, Told

pytestmark = pytest.mark.ray

B, G, T, V = 8, 4, 64, 20
PATIENCE_SECONDS = 120

Weights = dict[str, np.ndarray]
Start = Callable[..., "Learner"]


class Learner:
    """A group of two ranks on the tiny models, what it tells, and what tests do to it."""

    def __init__(self, recipe: Recipe, calls: RayCalls, actor_class: type = LearnerActor) -> None:
        self.told = Told()
        self._ray = calls
        self.group = LearnerGroup(recipe, self.told, calls, actor_class)
        self.group.wait_ready(PATIENCE_SECONDS, lambda: None)

    def pids(self) -> list[int]:
        """By rank."""
        pids: list[int] = []
        for fact in self.told.facts:
            if isinstance(fact, RankJoined):
                pids.insert(fact.rank, fact.pid)
            elif isinstance(fact, RankLost):
                pids.remove(fact.pid)
        return pids

    def kill(self, rank: int) -> None:
        os.kill(self.pids()[rank], signal.SIGKILL)

    def start(self, step: int, spoil: Callable[[GroupBatch], None] = lambda groups: None) -> None:
        groups = groups_of(step)
        spoil(groups)
        self.group.start_step([(self._ray.put(to_table(groups)), B)])

    def step(self, step: int, spoil: Callable[[GroupBatch], None] = lambda groups: None) -> StepReport:
        self.start(step, spoil)
        return self.group.finish_step()

    def weights(self) -> Weights:
        snapshot = self._ray.get(self.group.snapshot(0))
        return {name: tensor.numpy() for name, tensor in tensors_of(snapshot).items()}


def groups_of(step: int) -> GroupBatch:
    draws = np.random.default_rng(step)

    def tokens(*shape: int) -> np.ndarray:
        return draws.integers(V, size=shape, dtype=np.int32)

    return GroupBatch(
        sample_index_B=np.arange(B) + B * step,
        image_id_B=tuple("abcdefgh"),
        policy_version=step,
        codebook_size=V,
        context_tokens_BT=tokens(B, T - 1),
        target_tokens_BT=tokens(B, T),
        sampled_tokens_BGT=tokens(B, G, T),
        behaviour_logprobs_BGT=np.full((B, G, T), -np.log(V), dtype=np.float32),
        condition={"label": np.arange(B)},
        reward_terms={name: draws.random((B, G), dtype=np.float32) for name in ("mse", "lpips")},
    )


def spoil_the_first_ranks_loss(groups: GroupBatch) -> None:
    groups.behaviour_logprobs_BGT[0] = -1e30  # finite, but its ratio is not


def recipe_of(weights: Path, changes: dict[str, Any]) -> Recipe:
    own = {
        "tokenizer.checkpoint": str(weights / "tokenizer.safetensors"),
        "policy.checkpoint": str(weights / "policy.safetensors"),
    }
    return with_changes(Recipe.model_validate(TINY_RECIPE), own | changes)


@pytest.fixture
def start(tiny_weights: Path, shared_ray: None) -> Iterator[Start]:
    """Starts a learner of two ranks, with changes to the recipe."""
    started: list[Learner] = []

    def make(changes: dict[str, Any] | None = None, actor_class: type = LearnerActor) -> Learner:
        recipe = recipe_of(tiny_weights, {"learner.num_ranks": 2} | (changes or {}))
        started.append(Learner(recipe, RayCalls(), actor_class))
        return started[-1]

    yield make
    for learner in started:
        learner.group.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tiny_weights: Path) -> list[Weights]:
    """Weights after 0, 1, … 5 steps on the groups of those steps, of one rank that nothing happens to."""
    learner = Learner(recipe_of(tiny_weights, {}), FakeRay())
    weights = [learner.weights()]
    for step in range(5):
        learner.step(step)
        weights.append(learner.weights())
    learner.group.shutdown()
    return weights


def largest_difference(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float(abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.chaos)])
def test_a_rank_killed_in_a_step_is_outlived_at_once_and_replaced_later(
    start: Start, undisturbed: list[Weights], rank: int
) -> None:
    learner = start()
    learner.step(0)
    os.kill(learner.pids()[rank], signal.SIGSTOP)  # so that the other waits for it inside the collective
    learner.start(1)
    time.sleep(0.5)
    learner.kill(rank)
    report = learner.group.finish_step()
    assert len(learner.told.of(RankJoined)) == 2  # the survivor did not wait for a third
    assert (report.step, report.num_groups, report.is_partial) == (2, B, False)
    (lost,) = learner.told.of(RankLost)
    assert (lost.rank, lost.step) == (rank, 1)
    assert "died" in lost.reason
    assert largest_difference(learner.weights(), undisturbed[2]) < 1e-5
    assert largest_difference(undisturbed[1], undisturbed[2]) > 1e-4

    await_replacement(learner)
    for step in (2, 3):
        learner.step(step)
    assert [(fact.rank, fact.step) for fact in learner.told.of(RankJoined)] == [(0, 0), (1, 0), (1, 2)]
    assert largest_difference(learner.weights(), undisturbed[4]) < 1e-5
    learner.kill(0)  # the newcomer has all that the survivor had
    assert largest_difference(learner.weights(), undisturbed[4]) < 1e-5
    learner.step(4)
    assert largest_difference(learner.weights(), undisturbed[5]) < 1e-5


def await_replacement(learner: Learner) -> None:
    newcomers = learner.group.newcomers
    assert newcomers
    assert len(RayCalls().ready(newcomers, PATIENCE_SECONDS, len(newcomers))) == len(newcomers)


@pytest.mark.chaos
def test_a_rank_killed_between_two_steps_is_noticed_in_the_next(start: Start, undisturbed: list[Weights]) -> None:
    learner = start()
    learner.step(0)
    learner.kill(1)
    time.sleep(1)
    report = learner.step(1)
    assert (report.step, report.num_groups) == (2, B)
    assert largest_difference(learner.weights(), undisturbed[2]) < 1e-5


@pytest.mark.chaos
def test_an_update_that_a_survivor_completed_is_not_made_again(start: Start, undisturbed: list[Weights]) -> None:
    class DiesAfterItsUpdate(LearnerActor):
        def train(self, pieces, num_groups):
            result = super().train(pieces, num_groups)
            if self._rank == 1 and self.step() == 2:
                time.sleep(1)  # until the other has completed it, too
                os._exit(1)
            return result

    learner = start(actor_class=DiesAfterItsUpdate)
    assert learner.step(0).is_partial is False
    report = learner.step(1)
    assert (report.step, report.num_groups, report.is_partial) == (2, B, True)
    assert np.isfinite(report.loss)
    assert largest_difference(learner.weights(), undisturbed[2]) < 1e-5
    assert learner.step(2).is_partial is False
    assert largest_difference(learner.weights(), undisturbed[3]) < 1e-5


@pytest.mark.chaos
def test_a_loss_in_one_rank_that_is_no_number_is_skipped_by_both_and_ends_the_run_where_it_stays(
    start: Start, undisturbed: list[Weights]
) -> None:
    learner = start({"learner.max_bad_steps": 2})
    assert learner.step(0).is_bad is False
    report = learner.step(1, spoil_the_first_ranks_loss)
    assert (report.step, report.is_bad) == (2, True)
    assert largest_difference(learner.weights(), undisturbed[1]) < 1e-5
    assert learner.step(1).is_bad is False
    assert largest_difference(learner.weights(), undisturbed[2]) < 1e-5
    assert learner.step(2, spoil_the_first_ranks_loss).is_bad is True
    with pytest.raises(DivergedError, match=r"step 5 is nan .* in 2 steps in a row .*lower learner.lr"):
        learner.step(2, spoil_the_first_ranks_loss)
    learner.kill(0)
    assert largest_difference(learner.weights(), undisturbed[2]) < 1e-5  # those of the other rank


@pytest.mark.chaos
def test_the_loss_of_every_rank_and_too_many_losses_end_the_run(start: Start) -> None:
    learner = start()
    for rank in (0, 1):
        learner.kill(rank)
    with pytest.raises(LearnerLostError, match="all 2 learner ranks were lost in step 1"):
        learner.step(0)
    learner = start({"learner.max_restarts": 0})
    learner.kill(1)
    with pytest.raises(ClusterError, match=r"1 learner ranks were lost, more than learner\.max_restarts"):
        learner.step(0)
