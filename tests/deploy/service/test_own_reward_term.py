"""A term of the reward from somebody's own module, in whole runs: where it appears, and what its failures do.

The runs are those of tests/deploy/service/test_driver.py, on a stand-in for Ray.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from actors.rollout_actor import RolloutActor
from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.errors import DataError, RewardError, UserError
from common.facts import Ended, Fact, ImageSkipped, Started, StepLearned, TicketDelivered
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from common.sample_order import SampleOrder
from common.schema import from_table
from deploy.local_methods import post_train
from deploy.reporting.report import render
from deploy.runs.local_run import run_local
from deploy.runs.records import read_run
from tests import own_terms
from tests.deploy.service.test_driver import served
from tests.fakes import FakeRay, Told
from tests.service.reading import digest, events, lines

OWN = {"reward.python": "tests.own_terms:term", "reward.lpips": 0, "learner.num_steps": 2}
MAPPED = {
    "reward.python": {"tests.own_terms:Likeness": 2, "tests.own_terms:term": 0.5},
    "reward.lpips": 0,
    "advantage.credit": "token",
    "learner.num_steps": 2,
}

SmallRun = Callable[..., Recipe]


class Keeps(RolloutActor):
    """An actor of which a test sees the tables."""

    tables: list[Any] = []  # noqa: RUF012, emptied by each test

    def roll_out(self, ticket: Any, version: int, snapshot: Any) -> Any:
        receipt, table = super().roll_out(ticket, version, snapshot)
        Keeps.tables.append(table)
        return receipt, table


class Scrapes:
    """A sink that reads the run's metrics page at every fact of a kind."""

    def __init__(self, kind: type[Fact] = StepLearned) -> None:
        self.pages: list[str] = []
        self._kind = kind
        self._url = ""

    def record(self, fact: Fact) -> None:
        if isinstance(fact, Started):
            self._url = fact.metrics
        elif isinstance(fact, self._kind):
            with urlopen(self._url) as page:
                self.pages.append(page.read().decode())

    def values(self, name: str) -> dict[str, float]:
        """Of a metric on the newest page, by its label beside the run's."""
        families = text_string_to_metric_families(self.pages[-1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        own = [[value for label, value in sample.labels.items() if label != "run"] for sample in samples]
        return {"".join(label): sample.value for label, sample in zip(own, samples, strict=True)}


def test_a_term_appears_by_its_name_wherever_a_run_tells_of_its_reward(small_run: SmallRun) -> None:
    Keeps.tables = []
    told, scrapes = Told(), Scrapes()
    run = served(small_run("served", OWN), None, told, scrapes, rollout_actor=Keeps).folder.path

    assert len(Keeps.tables) == 2 * 4
    for table in Keeps.tables:
        columns = [name for name in table.column_names if name.startswith("reward")]
        assert columns == ["reward.mse", "reward.term"]
    reports = [fact.report for fact in told.of(StepLearned)]
    assert [list(report.reward_terms) for report in reports] == [["mse", "term"]] * 2
    first_step = [from_table(table).reward_terms["term"] for table in Keeps.tables[:4]]
    assert reports[0].reward_terms["term"] == pytest.approx(np.concatenate(first_step).mean(), rel=1e-5)
    assert reports[0].reward_terms["term"] > 0
    for report, line in zip(reports, lines(run / "metrics.jsonl"), strict=True):
        assert line["reward_term"] == report.reward_terms["term"]
        assert line["reward_mean"] == pytest.approx(-line["reward_mse"] - line["reward_term"], rel=1e-4)
    assert scrapes.values("vapi_learner_reward") == {
        "total": pytest.approx(reports[-1].reward_mean), **reports[-1].reward_terms,
    }  # fmt: skip
    page = render(read_run(str(run)), datetime.now(UTC))
    assert "Reward terms, steps 1 to 2: MSE from " in page
    assert "; term from " in page


def test_what_is_not_measured_is_absent_everywhere(small_run: SmallRun) -> None:
    Keeps.tables = []
    told, scrapes = Told(), Scrapes()
    run = served(small_run("served", OWN), None, told, scrapes, rollout_actor=Keeps).folder.path
    page = render(read_run(str(run)), datetime.now(UTC))
    texts = {
        "columns": str(Keeps.tables[0].column_names),
        "report": str(told.of(StepLearned)[0].report),
        "metrics.jsonl": (run / "metrics.jsonl").read_text(),
        "metrics page": scrapes.pages[-1],
        "page": page.partition('id="training"')[2].partition('id="recipe"')[0],
    }
    for name, text in texts.items():
        assert "mse" in text.lower(), name
        for word in ("lpips", "LPIPS", "l1", "L1"):
            assert word not in text, name
    assert "perceptual" not in lines(run / "metrics.jsonl")[0]["actor_stage_seconds"]


def rewards_of(run: Path) -> list[dict[str, float]]:
    """What each line of metrics.jsonl says of the reward."""
    steps = lines(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key.startswith("reward_")} for line in steps]


@pytest.mark.parametrize("changes", [OWN, MAPPED], ids=["by sample", "by token"])
def test_local_and_the_service_learn_the_same_from_it(small_run: SmallRun, changes: dict[str, Any]) -> None:
    local = run_local(small_run("local", changes)).path
    run = served(small_run("served", changes | {"actors.count": 2})).folder.path
    assert digest(run) == digest(local)
    losses, in_local = ([line["loss"] for line in lines(path / "metrics.jsonl")] for path in (run, local))
    assert losses == pytest.approx(in_local, rel=0, abs=1e-6)
    served_rewards, local_rewards = map(rewards_of, (run, local))
    assert [list(each) for each in served_rewards] == [list(each) for each in local_rewards]
    assert served_rewards == [pytest.approx(each, rel=1e-5) for each in local_rewards]
    without = {key: value for key, value in changes.items() if key != "reward.python"}
    assert digest(run_local(small_run("without", without)).path) != digest(local)


def test_a_term_of_which_more_is_better_raises_the_reward(small_run: SmallRun) -> None:
    told = Told()
    served(small_run("served", MAPPED), None, told)
    for fact in told.of(StepLearned):
        terms = fact.report.reward_terms
        expected = -terms["mse"] + 2 * terms["Likeness"] - 0.5 * terms["term"]
        assert fact.report.reward_mean == pytest.approx(expected, rel=1e-4)
        assert abs(terms["Likeness"]) > 0.01
        assert fact.metrics()["better"] == {"Likeness": "higher", "term": "lower"}


@pytest.fixture
def evaluated(tmp_path: Path) -> dict[str, Any]:
    """Changes for a run that is scored."""
    torch.manual_seed(0)
    save_weights(ImageClassifier(10).state_dict(), tmp_path / "classifier.safetensors")
    return {
        "evaluation": {
            "enabled": True,
            "classifier": str(tmp_path / "classifier.safetensors"),
            "num_samples": 24,
            "num_held_out": 3,
            "num_reference": 24,
            "compare_prior": True,
        },
        "sampling.batch_size": 24,
        "learner.num_steps": 1,
    }


def test_held_out_images_are_scored_by_it_and_the_prior_alone_learns_without_it(
    small_run: SmallRun, evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[dict[str, float]] = []

    def noting(*arguments: Any) -> Any:
        weights.append(arguments[4].reward.weights)
        return post_train(*arguments)

    monkeypatch.setattr("deploy.scoring.prior_alone.post_train", noting)
    outcome = served(small_run("served", OWN | evaluated))
    assert weights == [{}]
    scores = outcome.summary["evaluation"]
    for moment in ("before", "after", "prior_alone"):
        assert 0 < scores[moment]["reconstruction_term"] < 1, moment
        expected = -scores[moment]["held_out_mse"] - scores[moment]["held_out_term"]
        assert scores[moment]["held_out_reward"] == pytest.approx(expected, rel=1e-4), moment
        assert not [name for name in scores[moment] if "lpips" in name or "l1" in name]
    kept = lines(outcome.folder.path / "evaluations.jsonl")
    assert [line["held_out_term"] > 0 for line in kept] == [True, True]


def image_of(recipe: Recipe, sample_index: int) -> str:
    source = build_source(recipe, "train")
    return source.read(SampleOrder(recipe.seed, len(source)).image_index(sample_index)).image_id


FAILURES = {
    "raises": "reward.term failed: ValueError: no such colour",
    "wrong shape": "reward.term gave a tensor of shape [1, 3]: it must give a tensor of shape [1, 4], [B, G]",
    "not finite": "non-finite reward.term",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_an_image_that_it_fails_on_is_left_out_and_named_with_the_term_and_the_run_goes_on(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recipe = small_run("served", OWN)
    image_id = image_of(recipe, 5)
    monkeypatch.setitem(own_terms.SPOILED, image_id, kind)
    told = Told()
    outcome = served(recipe, None, told)
    (skipped,) = told.of(ImageSkipped)
    assert (skipped.image.sample_index, skipped.image.image_id) == (5, image_id)
    assert (skipped.image.reason, skipped.image.is_quarantined) == (FAILURES[kind], True)
    receipts = [fact.receipt for fact in told.of(TicketDelivered)]
    assert [receipt.skipped for receipt in receipts if receipt.skipped] == [(skipped.image,)]
    (event,) = events(outcome.folder.path, "image_skipped")
    assert event["reason"] == FAILURES[kind]
    assert [fact.report.num_groups for fact in told.of(StepLearned)] == [7, 8]
    assert (outcome.summary["status"], outcome.summary["images_skipped"]) == ("succeeded", 1)


IN_LOCAL = FAILURES | {"not finite": "reward.term gave a number that is not finite"}


@pytest.mark.parametrize("kind", FAILURES)
def test_local_cannot_leave_an_image_out_and_ends_with_the_name_of_the_term(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recipe = small_run("local", OWN)
    monkeypatch.setitem(own_terms.SPOILED, image_of(recipe, 5), kind)
    with pytest.raises(RewardError) as caught:
        run_local(recipe)
    assert str(caught.value) == IN_LOCAL[kind]


def test_a_term_that_always_fails_ends_the_run_with_its_name(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(own_terms.SPOILED, "every image", "raises")
    told = Told()
    with pytest.raises(DataError) as caught:
        served(small_run("served", OWN), None, told)
    reason = FAILURES["raises"]
    assert str(caught.value) == (
        "a step has no group to learn from: all of its 8 images were left out, 8 of them because of this: "
        f"{reason}; events.jsonl names each"
    )
    assert {fact.image.reason for fact in told.of(ImageSkipped)} == {reason}
    assert told.of(StepLearned) == []
    (ended,) = told.of(Ended)
    assert reason in ended.summary["error"]
    with pytest.raises(RewardError, match=reason):
        run_local(small_run("local", OWN))


def test_a_term_that_always_fails_ends_the_scoring_of_held_out_images_with_its_name(
    small_run: SmallRun, evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(own_terms.SPOILED, "every image", "wrong shape")
    with pytest.raises(
        DataError, match=r"can be read and scored; the first, mnist/\d+: reward\.term gave a tensor of shape"
    ):
        served(small_run("served", OWN | evaluated))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tests.gone:term", "but the module tests.gone cannot be imported"),
        ("tests.own_terms:gone", "but the module tests.own_terms has no gone"),
    ],
)
def test_a_term_that_is_not_there_ends_both_before_anything_starts(
    small_run: SmallRun, tmp_path: Path, address: str, words: str
) -> None:
    recipe = small_run("run", OWN | {"reward.python": address})
    ray = FakeRay()
    for start in (lambda: served(recipe, ray), lambda: run_local(recipe)):
        with pytest.raises(UserError) as caught:
            start()
        assert str(caught.value).startswith(f"reward.python names {address}, {words}")
        assert "\n" not in str(caught.value)
    assert ray.actors == []
    assert not (tmp_path / "run").exists()
