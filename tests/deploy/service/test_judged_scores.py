"""Runs that are scored with judges apart, on a stand-in for Ray: the scores are those with judges within."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actors import judging
from actors.evaluation.chunks import Unjudged, UnjudgedFeatures
from actors.evaluation.held_out import UnjudgedHeldOut
from actors.judge_actor import JudgeActor
from actors.pool_events import JUDGES
from actors.rewards import preference, table
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import ActorLost, ChunkLost, Scored
from common.judge_facts import JudgeLost
from common.sample_order import SampleOrder
from deploy.service.colocated_actor import ColocatedActor
from deploy.service.driver import Parts, train
from tests import own_terms
from tests.clips import reward_models
from tests.deploy.service.test_scored_runs import scored_recipe
from tests.fakes import DiesError, FakeActor, FakeRay, FakeSession, Told

TERMS = {
    "reward.lpips": 0,
    "reward.python": {"tests.own_terms:term": 0.5, "tests.own_terms:Likeness": 2},
    "reward.clip": 0.1,
}
SCORES = ["clip", "pickscore"]  # one that is also a term of the reward, and one that is not

Scores = dict[int, dict[str, float]]  # by step


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return reward_models(tmp_path_factory.mktemp("clips")).model_dump(mode="json")


@pytest.fixture
def recipe(tiny_weights: Path, tmp_path: Path, models: dict[str, Any]) -> Recipe:
    """Of a reward with judges and scores with others."""
    changes = TERMS | {"reward_models": models, "evaluation.scores": SCORES}
    return with_changes(scored_recipe(tiny_weights, tmp_path), changes)


def apart(recipe: Recipe, changes: dict[str, Any] | None = None) -> Recipe:
    """The same run with judge actors, under another name."""
    return with_changes(recipe, {"reward.actors.count": 1, "run.name": "apart"} | (changes or {}))


def served(recipe: Recipe, told: Told | None = None, **parts: Any) -> tuple[Scores, FakeRay]:
    told, ray = told or Told(), parts.pop("ray", None) or FakeRay()
    train(recipe, Parts(ray=ray, session=FakeSession(ray), sinks=(told,), **parts))
    return {fact.step: dict(fact.scores) for fact in told.of(Scored)}, ray


@pytest.fixture(scope="module")
def within(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory, models: dict[str, Any]) -> Scores:
    """Of that recipe without judge actors."""
    changes = TERMS | {"reward_models": models, "evaluation.scores": SCORES}
    scores, _ = served(with_changes(scored_recipe(tiny_weights, tmp_path_factory.mktemp("runs")), changes))
    judged = {f"{of}_{name}" for of in ("held_out", "reconstruction") for name in ("term", "Likeness", "clip")}
    assert list(scores) == [0, 2, 3]
    assert all({*judged, *SCORES} <= set(own) for own in scores.values())
    return scores


def num_asked(ray: FakeRay, method: str) -> int:
    return sum(name == method for actor in ray.actors for name, _ in actor.asked)


CHUNKS = 2 * (2 + 2) + (2 + 2) + 2 * (2 + 2)  # two of held-out images and two of pictures; two seeds but at step 2


class KnowsWho(FakeRay):
    """Keeps which kinds of actor make or load what is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, str]] = Counter()
        self._at_work = ["driver"]

    def _run(self, actor: FakeActor, *given: Any) -> None:
        self._at_work.append(actor.made_by[0].__name__)
        super()._run(actor, *given)
        self._at_work.pop()

    def watch(self, patch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        real = getattr(module, name)

        def noting(*given: Any) -> Any:
            self.seen[self._at_work[-1], name] += 1
            return real(*given)

        patch.setattr(module, name, noting)


@pytest.mark.parametrize(("num_actors", "num_judges"), [(1, 1), (2, 3)])
def test_scores_are_the_same_and_no_reward_actor_loads_a_judge(
    recipe: Recipe, within: Scores, monkeypatch: pytest.MonkeyPatch, num_actors: int, num_judges: int
) -> None:
    ray = KnowsWho()
    for module, name in ((judging, "load_judges"), (table, "own_term"), (preference, "load_clip")):
        ray.watch(monkeypatch, module, name)
    counts = {"actors.count": num_actors, "reward.actors.count": num_judges}
    scores, _ = served(apart(recipe, counts), ray=ray)
    assert scores == within
    assert {who for who, _ in ray.seen} == {"JudgeActor"}
    assert ray.seen["JudgeActor", "load_judges"] == num_judges
    assert ray.seen["JudgeActor", "own_term"] == 2 * num_judges
    # each has clip, which reward and scores share; pickscore those that were first asked for it
    assert num_judges < ray.seen["JudgeActor", "load_clip"] <= 2 * num_judges
    assert num_asked(ray, "judge_chunk") == CHUNKS


def test_what_is_kept_of_the_whole_run_is_the_same(recipe: Recipe) -> None:
    """With yardsticks, which are scored in the driver's process, too."""
    kept = []
    compared = {"evaluation.compare_temperature": 0.5, "evaluation.compare_prior": True}
    for run in (recipe, apart(recipe)):
        folder = _folder(with_changes(run, compared))
        lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
        scores = json.loads((folder / "summary.json").read_text())["evaluation"]
        kept.append(
            (
                [{name: value for name, value in line.items() if name != "time"} for line in lines],
                {name: value for name, value in scores.items() if "picture" not in name},
                [(folder / "samples" / name).read_bytes() for name in ("step-000002.png", "held_out.png")],
            )
        )
    assert kept[0] == kept[1]
    assert kept[0][1]["better"] == {"term": "lower", "Likeness": "higher"}


def _folder(recipe: Recipe) -> Path:
    ray = FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray))).folder.path


def test_colocated_ranks_hand_the_pictures_of_chunks_over_as_well(
    recipe: Recipe, within: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[bool] = []

    class Ranks(ColocatedActor):
        def evaluate(self, *given: Any) -> Any:
            result, unjudged = super().evaluate(*given)
            handed.append(isinstance(unjudged, Unjudged))
            return result, unjudged

    changes = {"placement": "colocated", "actors.count": 0}
    scores, _ = served(apart(recipe, changes), colocated_actor=Ranks)
    assert scores == within
    assert sum(handed) == CHUNKS
    assert not all(handed)  # the reference needs no judge


WHEN = {UnjudgedHeldOut: (0, 5), UnjudgedFeatures: (1, 6)}  # before and during training


class Disturbed(JudgeActor):
    """Something happens over some chunks of each kind, by how many of it were given to a judge before."""

    seen: ClassVar[Counter[type]]

    def judge_chunk(self, unjudged: list[Any]) -> Any:
        kind = type(unjudged[0].value)
        self.seen[kind] += 1
        if self.seen[kind] - 1 in WHEN[kind]:
            self.disturb(unjudged)
        return super().judge_chunk(unjudged)

    def disturb(self, unjudged: list[Any]) -> None:
        raise NotImplementedError


def test_a_judge_that_dies_over_a_chunk_costs_only_another_judging(recipe: Recipe, within: Scores) -> None:
    class Dies(Disturbed):
        seen: ClassVar = Counter()

        def disturb(self, unjudged: list[Any]) -> None:
            raise DiesError("out of memory")

    told = Told()
    scores, ray = served(apart(recipe), told, judge_actor=Dies)
    assert scores == within
    assert [fact.reason for fact in told.of(JudgeLost)] == ["out of memory"] * 4
    assert told.of(ChunkLost) == told.of(ActorLost) == []
    evaluated = [arguments for actor in ray.actors for name, arguments in actor.asked if name == "evaluate"]
    judged = sum(type(chunk).__name__ in ("HeldOutChunk", "FeaturesChunk") for chunk, *_ in evaluated)
    assert judged == CHUNKS  # none was done twice


def test_a_chunk_whose_pictures_are_lost_with_a_node_is_done_again(recipe: Recipe, within: Scores) -> None:
    ray = FakeRay()

    class Forgets(Disturbed):
        seen: ClassVar = Counter()

        def disturb(self, unjudged: list[Any]) -> None:
            ray.lose(unjudged[0])

    told = Told()
    scores, _ = served(apart(recipe), told, ray=ray, judge_actor=Forgets)
    assert scores == within
    lost = told.of(ChunkLost)
    assert {(fact.actor, fact.reason) for fact in lost} == {(JUDGES, "pictures lost with a node")}
    assert len(lost) == 4
    assert told.of(JudgeLost) == told.of(ActorLost) == []
    assert num_asked(ray, "judge_chunk") == CHUNKS + 4


def test_a_result_that_is_lost_after_its_judging_is_made_again(recipe: Recipe, within: Scores) -> None:
    class LosesFirst(FakeRay):
        left = 2

        def call(self, method: Any, arguments: Any) -> Any:
            reference = super().call(method, arguments)
            if method.name == "judge_chunk" and self.left:
                self.left -= 1
                self.lose(reference)
            return reference

    told = Told()
    scores, _ = served(apart(recipe), told, ray=LosesFirst())
    assert scores == within
    assert {(fact.actor, fact.reason) for fact in told.of(ChunkLost)} == {(JUDGES, "result lost with a node")}


@pytest.mark.parametrize("images", [1, 2], ids=["one image", "a whole chunk"])
def test_images_that_a_judge_fails_on_are_left_out_of_the_scores_wherever_it_is(
    recipe: Recipe, within: Scores, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    source = build_source(recipe, "held_out")
    order = SampleOrder(recipe.seed, len(source))
    for index in range(2, 2 + images):
        monkeypatch.setitem(own_terms.SPOILED, source.read(order.image_index(index)).image_id, "raises")
    one, other = (served(run)[0] for run in (recipe, apart(recipe)))
    assert one == other
    assert {one[step]["held_out_mse"] != within[step]["held_out_mse"] for step in within} == {True}


def test_of_free_running_samples_the_scores_are_the_same(recipe: Recipe, tiny_weights: Path) -> None:
    changes = {
        "rollout.kind": "free_running",
        "reward.mse": 0,
        "reward.python": {},
        "reward.clip": 0,
        "reward.classifier": 1,
        "reward.classifier_checkpoint": str(tiny_weights / "classifier.safetensors"),
        "learner.prior": "kl",
        "context.noise": 0,
        "evaluation.scores": ["aesthetic"],
    }
    one, other = (served(with_changes(run, changes))[0] for run in (recipe, apart(recipe)))
    assert one == other
    assert {"held_out_classifier", "reconstruction_classifier", "aesthetic"} <= set(one[2])
