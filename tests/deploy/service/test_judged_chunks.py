"""Chunks of an evaluation that judge actors complete, in the driver's loop on a stand-in for Ray."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.pool_events import JUDGES
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.facts import ChunkLost, Published, Scored, TicketDelivered
from common.judge_facts import JudgeLost
from deploy.scoring.scorer import Evaluation
from tests.deploy.service.scripted import Actor, FourChunks, Judge, Rank, Served, serving
from tests.fakes import DiesError, FakeRay, Late

STEPS = 5
ALL = list(range(2 * STEPS))  # two tickets a step
JUDGED = {
    "reward.python": "tests.own_terms:term",
    "reward.actors.count": 1,
    "learner.num_steps": STEPS,
    "evaluation.every": 2,
}
SCORES = [(step, {f"chunk_{number}": float(step) for number in range(4)}) for step in (2, 4)]


@pytest.fixture
def loop(tiny_recipe: Recipe, tmp_path: Path) -> Any:
    def make(changes: dict[str, Any] | None = None, **parts: Any) -> Any:
        recipe = with_changes(tiny_recipe, JUDGED | (changes or {}))
        return serving(recipe, tmp_path / "run", **{"scorer": FourChunks(), **parts})

    return make


class SlowJudge(Judge):
    def judge_chunk(self, *given: Any) -> Any:
        return Late(5.0, super().judge_chunk(*given))


class SlowRank(Rank):
    def train(self, pieces: Any, num_groups: int) -> Any:
        return Late(1.0, super().train(pieces, num_groups))


class Pulls(Actor):
    """It needs its weights for every chunk."""

    def evaluate(self, *given: Any) -> Any:
        self._version = -1
        return super().evaluate(*given)


def scores(served: Served) -> list[tuple[int, dict[str, float]]]:
    return [(fact.step, dict(fact.scores)) for fact in served.told.of(Scored)]


def num_asked(ray: FakeRay, method: str) -> int:
    return sum(name == method for actor in ray.actors for name, _ in actor.asked)


def test_judges_complete_the_chunks_beside_the_tickets(loop) -> None:
    with loop({"reward.actors.count": 2, "actors.count": 2}) as served:
        served.run()
    assert scores(served) == SCORES
    assert served.tickets == ALL
    assert num_asked(served.ray, "evaluate") == num_asked(served.ray, "judge_chunk") == 8


def test_a_judge_that_dies_over_a_chunk_is_replaced_and_loses_no_ticket_by_it(loop) -> None:
    ray = FakeRay()
    ray.instead[2, "judge_chunk", 0] = DiesError("out of memory")
    with loop(ray=ray) as served:
        served.run()
    assert scores(served) == SCORES
    (lost,) = served.told.of(JudgeLost)
    assert (lost.actor, lost.reason, lost.chunks) == ("judge-0", "out of memory", [0])
    assert served.tickets == ALL
    assert num_asked(ray, "evaluate") == 8


def test_what_a_judge_raises_over_a_chunk_ends_the_run(loop) -> None:
    class Raises(Judge):
        def judge_chunk(self, *given: Any) -> Any:
            raise DataError("the pictures have neither captions nor class names")

    with loop(judge=Raises) as served, pytest.raises(DataError, match="neither captions nor class names"):
        served.run()


class Forgets(Judge):
    """It loses the pictures of the first chunk, and with them the weights that it was made with."""

    has_lost = False

    def judge_chunk(self, unjudged: list[Any]) -> Any:
        assert isinstance(self._ray, FakeRay)
        if not type(self).has_lost:
            type(self).has_lost = True
            self._ray.lose(unjudged[0])
            asked = [given for actor in self._ray.actors for name, given in actor.asked if name == "evaluate"]
            self._ray.lose(asked[0][2][0])
        return super().judge_chunk(unjudged)


def test_pictures_and_weights_that_are_lost_together_are_made_again(loop) -> None:
    class Once(Forgets):
        """With a mark of its own."""

    with loop(actor=Pulls, judge=Once, rank=SlowRank) as served:
        served.run()
    assert scores(served) == SCORES
    lost = served.told.of(ChunkLost)
    assert lost[0] == ChunkLost(JUDGES, 0, 2, "pictures lost with a node")
    assert {(fact.actor, fact.reason) for fact in lost[1:]} == {("actor-0", "weights lost with a node")}
    assert [fact.version for fact in served.told.of(Published)].count(2) == 2
    assert served.tickets == ALL


def test_an_evaluation_whose_pictures_are_lost_is_given_up_where_its_weights_are_gone(
    loop, caplog: pytest.LogCaptureFixture
) -> None:
    class Once(Forgets):
        """With a mark of its own."""

        def judge_chunk(self, unjudged: list[Any]) -> Any:
            try:
                return super().judge_chunk(unjudged)
            except Exception as error:
                return Late(3.0, error)  # by then the learner is further

    with loop({"buffer.max_staleness": 1}, actor=Pulls, judge=Once, rank=SlowRank) as served:
        served.run()
    assert ("vapi.evaluation", logging.WARNING, "step 2 is not scored: its weights were lost with a node") in (
        caplog.record_tuples
    )
    assert scores(served) == SCORES[1:]
    assert served.tickets == ALL


class ManyChunks(FourChunks):
    def evaluate(self, run_chunks: Callable[[list[str]], list[int]], **_: Any) -> list[Evaluation]:
        run_chunks([f"chunk {number}" for number in range(20)])
        return [Evaluation({}, np.zeros((1, 8, 8, 3), np.uint8))]


def test_pictures_do_not_pile_up_before_slow_judges_and_tickets_are_judged_between_them(loop) -> None:
    waiting: list[int] = []

    def count(served: Served) -> None:
        assert served.loop.judges is not None
        waiting.append(sum(not hasattr(work, "receipt") for work in served.loop.judges._waiting))

    changes = {"actors.count": 2, "buffer.max_staleness": 4, "evaluation.every": 1}
    with loop(changes, judge=SlowJudge, scorer=ManyChunks(), at_turn=count) as served:
        served.run()
    assert served.tickets == ALL
    assert max(waiting) == 2  # one for each actor
    assert len(served.told.of(Scored)) >= 2
    assert {fact.judge for fact in served.told.of(TicketDelivered)} == {"judge-0"}


def test_between_trainings_actors_begin_no_chunk_while_another_waits_for_a_judge(loop) -> None:
    with loop({"actors.count": 2, "reward.actors.tickets_in_flight": 1}, judge=SlowJudge) as served:
        pool, judges = served.loop.pool, served.loop.judges
        assert judges is not None
        done = pool.evaluate(
            [f"chunk {number}" for number in range(9)], served.loop.stepper.published, None, judges
        )
        begun = [num_asked(served.ray, "evaluate") - number for number, _ in enumerate(done)]
    assert len(begun) == 9
    assert max(begun) <= 5  # one is judged, and both actors' last and next
    assert (judges.num_waiting, judges.has_chunks_waiting) == (0, False)
