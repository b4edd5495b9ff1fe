"""Groups whose samples all have the same reward teach nothing: a run counts them, and warns where all are such."""

from datetime import UTC, datetime
from typing import Any

import pytest

from common.facts import GroupsQuarantined, RewardsFlat, StepLearned
from deploy.reporting.report import render
from deploy.runs.local_run import run_local
from deploy.runs.records import read_run
from tests import own_terms
from tests.deploy.service.test_driver import served
from tests.deploy.service.test_own_reward_term import Scrapes, SmallRun, image_of
from tests.fakes import Told
from tests.service.reading import digest, events, lines

TERM_ALONE: dict[str, Any] = {
    "reward": {"mse": 0, "lpips": 0, "python": "tests.own_terms:term"},
    "learner.num_steps": 2,
}


def warnings(capsys: pytest.CaptureFixture[str], sentence: str) -> list[str]:
    """Lines of the log since the last look."""
    return [line for line in capsys.readouterr().err.splitlines() if sentence in line and " WARNING " in line]


def test_some_flat_groups_are_told_of_with_their_step(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_run("served", TERM_ALONE)
    for index in (1, 6):
        monkeypatch.setitem(own_terms.SPOILED, image_of(recipe, index), "constant")
    told, scrapes = Told(), Scrapes(RewardsFlat)
    run = served(recipe, None, told, scrapes).folder.path
    assert told.of(RewardsFlat) == [RewardsFlat(1, 2, is_whole_step=False)]
    assert told.names.index("rewards_flat") > told.names.index("step_learned")
    assert [line["num_flat"] for line in lines(run / "metrics.jsonl")] == [2, 0]
    assert scrapes.values("vapi_learner_flat_groups_total") == {"": 2.0}
    sentence = "all samples have the same reward in 2 groups of step 1"
    assert len(warnings(capsys, sentence)) == 1
    local = run_local(small_run("local", TERM_ALONE)).path
    assert digest(local) == digest(run)
    assert [line["num_flat"] for line in lines(local / "metrics.jsonl")] == [2, 0]
    assert len(warnings(capsys, sentence)) == 1
    (event,) = events(local, "rewards_flat")
    assert (event["step"], event["num_groups"], event["is_whole_step"]) == (1, 2, False)


def test_a_step_that_learned_nothing_from_the_reward_is_a_warning_of_its_own(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_run("served", TERM_ALONE)
    for index in range(8):
        monkeypatch.setitem(own_terms.SPOILED, image_of(recipe, index), "constant")
    told, scrapes = Told(), Scrapes(RewardsFlat)
    run = served(recipe, None, told, scrapes).folder.path
    assert told.of(RewardsFlat) == [RewardsFlat(1, 8, is_whole_step=True)]
    assert scrapes.values("vapi_learner_flat_groups_total") == {"": 8.0}
    sentence = "step 1 learned nothing from the reward: all samples of each group have the same"
    assert len(warnings(capsys, sentence)) == 1
    assert lines(run / "metrics.jsonl")[0]["policy_loss"] == 0.0
    assert sentence in render(read_run(str(run)), datetime.now(UTC))


def test_a_quarantined_group_is_none_of_them_and_the_others_are_the_whole_step(
    small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_run("served", TERM_ALONE)
    kinds = ["not finite", *["constant"] * 7]
    for index, kind in enumerate(kinds):
        monkeypatch.setitem(own_terms.SPOILED, image_of(recipe, index), kind)
    told = Told()
    served(recipe, None, told)
    assert told.of(RewardsFlat) == [RewardsFlat(1, 7, is_whole_step=True)]
    assert told.of(GroupsQuarantined) == []


def test_the_prior_alone_raises_no_alarm(small_run: SmallRun) -> None:
    changes = {"reward": {"mse": 0, "lpips": 0}, "learner.ce_weight": 1, "learner.num_steps": 1}
    told = Told()
    served(small_run("served", changes), None, told)
    (learned,) = told.of(StepLearned)
    assert (learned.report.num_flat, learned.report.policy_loss, learned.report.reward_terms) == (0, 0.0, {})
    assert told.of(RewardsFlat) == []
    local = run_local(small_run("local", changes)).path
    assert events(local, "rewards_flat") == []
