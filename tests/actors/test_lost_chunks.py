"""Chunks of an evaluation whose weights or results go down with a node, on a stand-in for Ray: done again."""

from typing import Any

import pytest

from actors.pool_events import ChunkDone, LostChunk, PublishedPolicy
from actors.rollout_actor import ActorDescription, ActorJob, WeightsLostError
from actors.rollout_pool import RolloutPool
from common.config.recipe import Recipe
from common.errors import DataError
from common.facts import ActorLost, ChunkLost
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from tests.fakes import FakeRay, Told


class Actor:
    """Answers with the chunk and the weights that it did it with."""

    def __init__(self, recipe: Recipe, name: str, job: ActorJob, calls: RayCalls):
        self._ray = calls

    def describe(self) -> ActorDescription:
        return ActorDescription("node-a", 7, "cpu", code_fingerprint())

    def evaluate(self, chunk: str, version: int, snapshot: list[Any]) -> tuple[str, None]:
        try:
            return f"{chunk} with {self._ray.get(snapshot[0])}", None
        except ValueLostError as error:
            raise WeightsLostError from error


class LosesResults(FakeRay):
    """The nodes with the first results of the chunks go down with them."""

    def __init__(self, *chunks: str):
        super().__init__()
        self._to_lose = list(chunks)

    def call(self, method: Any, arguments: Any) -> Any:
        references = super().call(method, arguments)
        if method.name == "evaluate" and arguments[0] in self._to_lose:
            self._to_lose.remove(arguments[0])
            self.lose(references[0])
        return references


def pool_of(recipe: Recipe, ray: FakeRay, told: Told, count: int = 2, actor: type = Actor) -> RolloutPool:
    pool = RolloutPool(recipe, told, lambda: None, ray, actor)
    pool.resize(count)
    pool.wait_ready(60)
    return pool


def lost_policy(ray: FakeRay) -> PublishedPolicy:
    """One whose weights no node has."""
    published = PublishedPolicy(3, ray.put("weights"))
    ray.lose(published.snapshot)
    return published


def test_a_lost_result_is_an_event_and_its_actor_stays(tiny_recipe: Recipe) -> None:
    ray, told = LosesResults("a"), Told()
    pool = pool_of(tiny_recipe, ray, told, count=1)
    published = PublishedPolicy(3, ray.put("weights"))
    pool.submit_chunk("actor-0", 4, "a", published)
    assert pool.collect() == [LostChunk("actor-0", 4, 3, "result")]
    pool.submit_chunk("actor-0", 4, "a", published)
    assert pool.collect() == [ChunkDone("actor-0", 4, "a with weights")]
    assert (len(pool), pool.num_restarts, told.of(ActorLost)) == (1, 0, [])


def test_weights_that_cannot_be_pulled_are_an_event_and_their_actor_stays(tiny_recipe: Recipe) -> None:
    ray, told = FakeRay(), Told()
    pool = pool_of(tiny_recipe, ray, told, count=1)
    pool.submit_chunk("actor-0", 4, "a", lost_policy(ray))
    assert pool.collect() == [LostChunk("actor-0", 4, 3, "weights")]
    assert (len(pool), pool.num_restarts, told.of(ActorLost)) == (1, 0, [])


def test_an_evaluation_does_chunks_again_whose_results_were_lost(tiny_recipe: Recipe) -> None:
    ray, told = LosesResults("a", "c", "c"), Told()
    pool = pool_of(tiny_recipe, ray, told)
    done = sorted(pool.evaluate(["a", "b", "c"], PublishedPolicy(3, ray.put("weights"))))
    assert done == [(0, "a with weights"), (1, "b with weights"), (2, "c with weights")]
    assert [(fact.chunk, fact.version, fact.reason) for fact in told.of(ChunkLost)] == [
        (0, 3, "result lost with a node"),
        (2, 3, "result lost with a node"),
        (2, 3, "result lost with a node"),
    ]


def test_an_evaluation_has_its_weights_published_again_once_for_all_who_missed_them(tiny_recipe: Recipe) -> None:
    ray, told, publications = FakeRay(), Told(), []
    pool = pool_of(tiny_recipe, ray, told)

    def publish_again() -> PublishedPolicy:
        publications.append(len(told.of(ChunkLost)))
        return PublishedPolicy(3, ray.put("the same weights"))

    done = sorted(pool.evaluate(["a", "b", "c"], lost_policy(ray), publish_again))
    assert done == [(index, f"{chunk} with the same weights") for index, chunk in enumerate("abc")]
    assert publications == [2]  # after both actors had missed them
    assert told.of(ChunkLost) == [
        ChunkLost(f"actor-{index}", index, 3, "weights lost with a node") for index in (0, 1)
    ]


def test_what_was_done_before_the_weights_were_lost_is_not_done_again(tiny_recipe: Recipe) -> None:
    class LosesWeightsAtC(FakeRay):
        def call(self, method: Any, arguments: Any) -> Any:
            if method.name == "evaluate" and arguments[0] == "c":
                self.lose(published.snapshot)
            return super().call(method, arguments)

    ray = LosesWeightsAtC()
    pool = pool_of(tiny_recipe, ray, Told(), count=1)
    published = PublishedPolicy(3, ray.put("weights"))
    done = list(pool.evaluate(["a", "b", "c", "d"], published, lambda: PublishedPolicy(3, ray.put("others"))))
    assert done == [(0, "a with weights"), (1, "b with weights"), (2, "c with others"), (3, "d with others")]
    assert [arguments[0] for name, arguments in ray.actors[0].asked if name == "evaluate"] == list("abccd")


def test_weights_are_published_again_as_often_as_they_are_lost(tiny_recipe: Recipe) -> None:
    ray, left = FakeRay(), [lost_policy, lost_policy, lambda ray: PublishedPolicy(3, ray.put("weights"))]
    pool = pool_of(tiny_recipe, ray, Told(), count=1)
    assert list(pool.evaluate(["a"], lost_policy(ray), lambda: left.pop(0)(ray))) == [(0, "a with weights")]
    assert left == []


def test_a_late_actor_that_missed_the_former_weights_costs_no_chunk(tiny_recipe: Recipe) -> None:
    class LateLoss(FakeRay):
        def call(self, method: Any, arguments: Any) -> Any:
            references = super().call(method, arguments)
            if method.name == "evaluate" and arguments[0] == "b" and references[0].error is not None:
                references[0].done_at += 2.0  # by then the weights are there again
            return references

    ray, told = LateLoss(), Told()
    pool = pool_of(tiny_recipe, ray, told)
    done = pool.evaluate(["a", "b"], lost_policy(ray), lambda: PublishedPolicy(3, ray.put("others")))
    assert sorted(done) == [(0, "a with others"), (1, "b with others")]
    assert len(told.of(ChunkLost)) == 2


def test_what_a_chunk_raises_is_raised(tiny_recipe: Recipe) -> None:
    class Broken(Actor):
        def evaluate(self, *chunk: Any) -> str:
            raise DataError("the data set is gone")

    ray = FakeRay()
    pool = pool_of(tiny_recipe, ray, Told(), actor=Broken)
    with pytest.raises(DataError, match="the data set is gone"):
        list(pool.evaluate(["a"], PublishedPolicy(3, ray.put("weights"))))
