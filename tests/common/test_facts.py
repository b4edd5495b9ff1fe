"""What facts say of themselves: their names and what stands in events.jsonl and metrics.jsonl."""

import json
import math
import re

import pytest

from common.facts import CheckpointWritten, Ended, StepLearned
from tests.example_facts import EXAMPLES, REPORT, as_event, learned

DESIGNED = {  # what tools rely on
    "step", "policy_version", "loss", "policy_loss", "ce_prior", "reward_mean", "reward_mse", "reward_lpips",
    "clip_fraction", "grad_norm", "staleness_max", "num_groups", "num_actors", "step_seconds", "wait_seconds",
}  # fmt: skip
MORE = {
    "reward_std", "reward_l1", "kl", "entropy", "kl_prior", "num_flat", "num_dropped", "num_quarantined", "is_bad",
    "is_partial", "resident_bytes", "gpu_peak_bytes", "staleness_mean", "groups_buffered",
    "stage_seconds", "actor_stage_seconds", "num_judges", "judge_seconds",
}  # fmt: skip


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_every_fact_is_one_object_of_plain_values_with_its_name_under_event(fact) -> None:
    event = as_event(fact)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", fact.event)
    assert event["event"] == fact.event  # and nothing of its own is called that
    assert "time" not in event
    assert json.loads(json.dumps(event, allow_nan=False)) == event


def test_the_names_that_older_tools_know() -> None:
    assert [fact.event for fact in EXAMPLES if isinstance(fact, Ended)] == ["succeeded", "stopped", "failed"]
    assert [fact.event for fact in EXAMPLES if isinstance(fact, CheckpointWritten)] == ["checkpoint"]
    assert learned(1).event == "step_learned"


def test_a_step_has_exactly_the_keys_of_metrics() -> None:
    metrics = learned(7).metrics()
    assert not DESIGNED & MORE
    assert set(metrics) == DESIGNED | MORE
    assert json.loads(json.dumps(metrics)) == metrics


def test_a_steps_staleness_is_the_largest_and_the_mean_over_tickets_that_have_groups() -> None:
    metrics = learned(7, staleness=[0, 2, 1]).metrics()
    assert (metrics["staleness_max"], metrics["staleness_mean"]) == (2, 1.0)
    nothing = learned(7, staleness=[]).metrics()
    assert (nothing["staleness_max"], nothing["staleness_mean"]) == (0, 0.0)


def test_a_process_alone_waits_for_nobody() -> None:
    metrics = StepLearned.alone(REPORT, step_seconds=2.0).metrics()
    assert set(metrics) == DESIGNED | MORE
    told = ("step", "policy_version", "num_actors", "staleness_max", "wait_seconds", "step_seconds")
    assert [metrics[key] for key in told] == [7, 7, 0, 0, 0.0, 2.0]
    assert math.isclose(metrics["loss"], 1.5)
