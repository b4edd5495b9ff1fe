"""Learner ranks that roll out as well, on a stand-in for Ray: who gets what, and what a dead rank costs."""

from pathlib import Path
from typing import Any

import pytest

from actors.rollout_actor import WeightsLostError
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import LearnerLostError
from common.facts import ActorJoined, ActorLost, Published, RankJoined, RankLost
from common.types import GroupReceipt, WorkTicket
from tests.deploy.service.scripted import Actor, FourChunks, Rank, Served, serving
from tests.fakes import DiesError, FakeRay, Late

STEPS = 5
ALL = list(range(2 * STEPS))  # two tickets a step
COLOCATED = {"placement": "colocated", "actors.count": 0, "learner.num_steps": STEPS}


class Both(Rank):
    """A rank that rolls out: its groups are the words "ticket N by rank M at step S"."""

    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Nothing."""

    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> Any:
        self._require(version)
        receipt = GroupReceipt(ticket.ticket_id, version, len(ticket.sample_indices), 10, (), {"decode": 0.25})
        return receipt, f"ticket {ticket.ticket_id} by rank {self.number} at step {self.steps}"

    def evaluate(self, chunk: str, version: int, snapshot: list[Any]) -> tuple[int, None]:
        self._require(version)
        return version, None

    def _require(self, version: int) -> None:
        if version != self.steps:
            raise WeightsLostError(f"version {version} at step {self.steps}")


@pytest.fixture
def loop(tiny_recipe: Recipe, tmp_path: Path) -> Any:
    def make(changes: dict[str, Any] | None = None, **parts: Any) -> Any:
        recipe = with_changes(tiny_recipe, COLOCATED | (changes or {}))
        return serving(recipe, tmp_path / "run", **({"rank": Both} | parts))

    return make


def tickets(served: Served) -> list[int]:
    return sorted(ticket for step in served.steps for ticket in step.tickets)


def asked(ray: FakeRay, method: str) -> int:
    return sum(name == method for actor in ray.actors for name, _ in actor.asked)


def test_ranks_roll_out_what_they_learn_from_and_no_weights_travel(loop) -> None:
    with loop({"learner.num_ranks": 2}) as served:
        served.run()
    assert tickets(served) == ALL
    assert [step.staleness for step in served.steps] == [[0, 0]] * STEPS
    assert [(fact.version, fact.num_bytes) for fact in served.told.of(Published)] == [
        (version, 0) for version in range(1, STEPS + 1)
    ]
    assert asked(served.ray, "copy_weights") == asked(served.ray, "snapshot") == 0
    assert [fact.actor for fact in served.told.of(ActorJoined)] == ["rank-0", "rank-1"]
    rolled = {fact.actor for fact in served.told.facts if fact.event == "ticket_delivered"}
    assert rolled == {"rank-0", "rank-1"}
    assert served.folder.checkpoints.joinpath(f"step-{STEPS:06d}").is_dir()


def test_reward_actors_join_in_and_get_the_weights_of_the_next_version(loop) -> None:
    def scale(served: Served) -> None:
        if len(served.steps) == 1:
            served.ask({"scale": 2})

    class SlowRank(Both):
        def train(self, pieces: Any, num_groups: int) -> Any:
            return Late(1.0, super().train(pieces, num_groups))

    with loop(rank=SlowRank, at_turn=scale) as served:
        served.run()
    assert tickets(served) == ALL
    travelled = [fact.num_bytes > 0 for fact in served.told.of(Published)]
    assert travelled == sorted(travelled)
    assert travelled[-1]
    actors = [actor for actor in served.ray.actors if isinstance(actor.self, Actor)]
    assert sum(name == "roll_out" for actor in actors for name, _ in actor.asked) > 0
    assert all(step.staleness == [0, 0] for step in served.steps)


@pytest.mark.parametrize("method", ["roll_out", "train"])
def test_a_rank_that_dies_loses_its_tickets_and_a_replacement_takes_its_place(loop, method: str) -> None:
    ray = FakeRay()
    ray.instead[1, method, 1] = DiesError("killed")
    with loop({"learner.num_ranks": 2}, ray=ray) as served:
        served.run()
    assert tickets(served) == ALL
    (lost,) = served.told.of(RankLost)
    assert lost.rank == 1
    assert [fact.rank for fact in served.told.of(RankJoined)] == [0, 1, 1]
    assert [fact.actor for fact in served.told.of(ActorJoined)] == ["rank-0", "rank-1", "rank-2"]
    assert [fact.actor for fact in served.told.of(ActorLost)] == (["rank-1"] if method == "roll_out" else [])
    assert all(step.staleness == [0, 0] for step in served.steps)


@pytest.mark.parametrize("method", ["roll_out", "train"])
def test_the_loss_of_the_only_rank_is_that_of_the_learner(loop, method: str) -> None:
    ray = FakeRay()
    ray.instead[0, method, 3] = DiesError("killed")
    with loop(ray=ray) as served, pytest.raises(LearnerLostError, match="all 1 learner ranks were lost"):
        served.run()


def test_the_next_step_waits_until_the_ranks_have_scored_their_policy(loop) -> None:
    changes = {"evaluation.every": 2, "learner.num_ranks": 2}
    with loop(changes, scorer=FourChunks()) as served:
        served.run()
    scored = [fact for fact in served.told.facts if fact.event == "scored"]
    assert [(fact.step, set(fact.scores.values())) for fact in scored] == [(2, {2.0}), (4, {4.0})]
    assert served.told.names.count("chunk_lost") == 0


def test_a_rank_that_is_too_slow_is_ended_and_replaced_like_a_dead_one(loop) -> None:
    ray = FakeRay()
    ray.instead[1, "roll_out", 1] = Late(10_000.0, None)
    changes = {"learner.num_ranks": 2, "actors.ticket_timeout_seconds": 20, "actors.tickets_in_flight": 1}
    with loop(changes, ray=ray) as served:
        served.run()
    assert tickets(served) == ALL
    assert [fact.rank for fact in served.told.of(RankLost)] == [1]
    assert [fact.actor for fact in served.told.of(ActorJoined)] == ["rank-0", "rank-1", "rank-2"]
    assert ray.now < 100
    assert {state.actors_ready for state in served.states} == {0}  # guests are no reward actors


def test_while_a_checkpoint_waits_for_the_one_before_it_ranks_get_no_tickets(loop) -> None:
    class SlowState(Both):
        def training_state(self) -> Any:
            return Late(5.0, super().training_state())

    with loop({"checkpoint.every": 1}, rank=SlowState) as served:
        served.run()
    assert tickets(served) == ALL
    assert served.told.names.count("rank_lost") == 0
