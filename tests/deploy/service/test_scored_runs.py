"""Runs that are scored before, during and after, on a stand-in for Ray: their scores survive losses."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.evaluation.chunks import EvaluationChunk, FeaturesChunk, ReferenceChunk
from actors.evaluation.held_out import HeldOutChunk
from actors.rollout_actor import RolloutActor, WeightsLostError
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import ActorLost, ChunkLost, Resumed, Scored, ScoringStarted, StepLearned
from common.yardstick_facts import YardstickScored
from deploy.service.driver import Parts, train
from tests.conftest import TINY_RECIPE
from tests.fakes import DiesError, FakeRay, FakeSession, Told
from tests.service.reading import lines

Scores = dict[int, dict[str, float]]  # by step


def scored_recipe(weights: Path, folder: Path) -> Recipe:
    """Of a run of three steps that is scored on few digits, after the second step also."""
    evaluation = {
        "enabled": True,
        "every": 2,
        "num_samples": 20,
        "num_held_out": 4,
        "num_reference": 300,
        "classifier": "deploy/recipes/mnist/classifier.safetensors",
    }
    changes = {
        "run": {"name": "run", "dir": str(folder)},
        "tokenizer.checkpoint": str(weights / "tokenizer.safetensors"),
        "policy.checkpoint": str(weights / "policy.safetensors"),
        "learner.num_steps": 3,
        "sampling.batch_size": 10,
        "evaluation": evaluation,
    }
    return with_changes(Recipe.model_validate(TINY_RECIPE), changes)


@pytest.fixture
def recipe(tiny_weights: Path, tmp_path: Path) -> Recipe:
    return scored_recipe(tiny_weights, tmp_path)


def served(recipe: Recipe, *sinks: Any, ray: FakeRay | None = None, actor: type = RolloutActor) -> Path:
    ray = ray or FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray), sinks=sinks, rollout_actor=actor)).folder.path


def scores(told: Told) -> Scores:
    return {fact.step: dict(fact.scores) for fact in told.of(Scored)}


@pytest.fixture(scope="module")
def undisturbed(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    told = Told()
    served(scored_recipe(tiny_weights, tmp_path_factory.mktemp("runs")), told)
    assert [(fact.step, fact.what) for fact in told.of(ScoringStarted)] == [
        (0, "the base"), (2, "the policy"), (3, "the result")
    ]  # fmt: skip
    return scores(told)


def test_a_resumed_run_is_scored_during_training_though_its_base_was_scored_before(
    recipe: Recipe, undisturbed: Scores
) -> None:
    class StopsAfterStep1:
        def record(self, fact: Any) -> None:
            if isinstance(fact, StepLearned) and fact.report.step == 1:
                signal.raise_signal(signal.SIGTERM)

    first, second = Told(), Told()
    assert (served(recipe, first, StopsAfterStep1()) / "before.json").is_file()
    run = served(recipe, second)
    assert second.of(Resumed) == [Resumed(1)]
    assert [fact.what for fact in second.of(ScoringStarted)] == ["the policy", "the result"]
    assert scores(first) | scores(second) == undisturbed
    assert [line["step"] for line in lines(run / "evaluations.jsonl")] == [0, 2, 3]


class Disturbed(RolloutActor):
    """Does something else at the first chunk of each kind and version that is given here."""

    at: tuple[tuple[type, int], ...] = ()
    error: type[Exception] = DiesError
    done: set[tuple[type, int]]

    def evaluate(self, chunk: EvaluationChunk, version: int, snapshot: list[Any]) -> Any:
        what = type(chunk), version
        if what in self.at and what not in self.done:
            self.done.add(what)
            raise self.error
        return super().evaluate(chunk, version, snapshot)


def test_an_actor_that_dies_at_a_chunk_gives_it_back(recipe: Recipe, undisturbed: Scores) -> None:
    class Dies(Disturbed):
        at, done = ((ReferenceChunk, 0), (FeaturesChunk, 0), (FeaturesChunk, 2), (FeaturesChunk, 3)), set()

    told = Told()
    served(recipe, told, actor=Dies)
    assert Dies.done == set(Dies.at)
    assert len(told.of(ActorLost)) == 4
    assert scores(told) == undisturbed


def test_the_weights_that_are_lost_before_and_after_training_are_published_again(
    recipe: Recipe, undisturbed: Scores
) -> None:
    class MissesWeights(Disturbed):
        at, done, error = ((HeldOutChunk, 0), (FeaturesChunk, 3)), set(), WeightsLostError

    told, ray = Told(), FakeRay()
    served(recipe, told, ray=ray, actor=MissesWeights)
    assert [(fact.version, fact.reason) for fact in told.of(ChunkLost)] == [
        (0, "weights lost with a node"),
        (3, "weights lost with a node"),
    ]
    assert snapshots(ray, 0) == snapshots(ray, 3) == 2
    assert scores(told) == undisturbed


def snapshots(ray: FakeRay, version: int) -> int:
    """Of how many publications of a version chunks were done."""
    asked = [arguments for actor in ray.actors for name, arguments in actor.asked if name == "evaluate"]
    return len({id(snapshot) for _, asked_for, (snapshot,) in asked if asked_for == version})


def test_a_result_that_is_lost_is_made_again(recipe: Recipe, undisturbed: Scores) -> None:
    class LosesFeatures(FakeRay):
        def __init__(self) -> None:
            super().__init__()
            self.left = [0, 2, 3]

        def call(self, method: Any, arguments: Any) -> Any:
            references = super().call(method, arguments)
            is_of_features = method.name == "evaluate" and isinstance(arguments[0], FeaturesChunk)
            if is_of_features and arguments[1] in self.left:
                self.left.remove(arguments[1])
                self.lose(references[0])
            return references

    told = Told()
    served(recipe, told, ray=LosesFeatures())
    assert [(fact.version, fact.reason) for fact in told.of(ChunkLost)] == [
        (version, "result lost with a node") for version in (0, 2, 3)
    ]
    assert scores(told) == undisturbed


def test_yardsticks_are_scored_beside_the_base_and_the_result(recipe: Recipe) -> None:
    compared = {
        "compare_temperature": 0.5,
        "compare_guidance": 2,
        "compare_prior": True,
        "compare_prior_time": True,
    }
    told = Told()
    run = served(with_changes(recipe, {f"evaluation.{key}": value for key, value in compared.items()}), told)
    found = json.loads((run / "summary.json").read_text())["evaluation"]
    drawn = [
        "before",
        "before_at_compare_temperature",
        "before_at_compare_guidance",
        "after",
        "prior_alone",
        "prior_alone_as_long",
    ]
    assert len({found[key]["inception_score"] for key in drawn[:4]}) == 4
    assert found["before"]["held_out_reward"] == pytest.approx(found[drawn[2]]["held_out_reward"], abs=0.01)
    assert found["as_long_steps"] >= 3
    assert [fact.what for fact in told.of(YardstickScored)] == [
        "the base at temperature 0.5",
        "the base at guidance scale 2",
        "cross-entropy alone",
        f"cross-entropy alone, {found['as_long_steps']} steps",
    ]
