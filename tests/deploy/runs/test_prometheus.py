"""What happens in a run, as Prometheus metrics."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.config.recipe import Recipe
from common.config.service import MetricsSection
from common.facts import (
    ActorJoined,
    ActorLost,
    CheckpointWritten,
    Ended,
    GroupsQuarantined,
    ImageSkipped,
    LearnerLost,
    Published,
    RankJoined,
    RankLost,
    ResultRefused,
    Resumed,
    Scored,
    TicketDelivered,
    TicketDropped,
)
from common.judge_facts import JudgeLost
from common.metrics.catalogue import STATES
from common.metrics.exporter import Exporter, Metrics
from common.types import SkippedImage
from deploy.runs.prometheus import Prometheus
from deploy.runs.status import JudgesState, LoopState
from tests.example_facts import EXAMPLES, RECEIPT, learned


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def exporter(metrics: Metrics) -> Iterator[Exporter]:
    exporter = Exporter(metrics, MetricsSection(port=0))
    yield exporter
    exporter.close()


@pytest.fixture
def prometheus(tiny_recipe: Recipe, metrics: Metrics, exporter: Exporter) -> Prometheus:
    return Prometheus(tiny_recipe, metrics, exporter)


def test_the_run_is_announced(prometheus: Prometheus, metrics: Metrics) -> None:
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_wanted") == 1
    assert value("vapi_buffer_capacity_groups") == 4
    assert value("vapi_buffer_capacity_bytes") == 1 << 30
    assert (value("vapi_learner_num_steps"), value("vapi_learner_lr")) == (2, 1e-3)
    for began in ("vapi_checkpoint_timestamp_seconds", "vapi_driver_start_timestamp_seconds"):
        assert value(began) == pytest.approx(time.time(), abs=60)


def test_a_delivery_counts_groups_samples_and_tokens(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(TicketDelivered("actor-0", RECEIPT))
    prometheus.record(TicketDelivered("actor-1", RECEIPT))
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_groups_total") == 4
    assert value("vapi_actors_samples_total") == 16  # groups of 4
    assert value("vapi_actors_tokens_total") == 1024
    assert value("vapi_actors_images_total") == 6
    assert value("vapi_actors_stage_seconds_sum", {"stage": "decode"}) == 4
    assert value("vapi_actors_stage_seconds_sum", {"stage": "transfer"}) is None
    assert value("vapi_weights_pull_seconds_sum") == 0.5
    assert value("vapi_weights_pull_seconds_count") == 2


def test_a_ticket_that_needed_no_newer_weights_counts_as_no_pull(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(TicketDelivered("actor-0", replace(RECEIPT, stage_seconds={"decode": 2.0})))
    assert metrics.registry.get_sample_value("vapi_weights_pull_seconds_count") == 0


def test_what_goes_wrong_is_counted(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(ResultRefused("actor-0", 3))
    prometheus.record(TicketDropped(3, "stale", 0, num_groups=8))
    prometheus.record(TicketDropped(4, "groups lost with a node", 0, num_groups=2))
    prometheus.record(TicketDropped(5, "weights lost with a node", 0, num_groups=3))
    prometheus.record(ImageSkipped(SkippedImage(0, "a.png", "no picture")))
    prometheus.record(ImageSkipped(SkippedImage(1, "b.png", "non-finite reward", is_quarantined=True)))
    prometheus.record(GroupsQuarantined(8, num_groups=2))
    value = metrics.registry.get_sample_value
    assert value("vapi_buffer_refused_results_total") == 1
    assert value("vapi_buffer_dropped_groups_total", {"reason": "stale"}) == 8
    assert value("vapi_buffer_dropped_groups_total", {"reason": "lost"}) == 5
    assert value("vapi_actors_skipped_images_total") == 1
    assert value("vapi_actors_quarantined_groups_total") == 3


def test_actors_and_ranks_that_are_lost_are_counted(prometheus: Prometheus, metrics: Metrics) -> None:
    for fact in (
        ActorJoined("actor-0", "n", 1, "cpu"),
        ActorLost("actor-0", "died", []),
        RankLost(0, "died", 3, 1),
        RankLost(None, "died", 3, None),
        RankJoined(0, 3, "n", 1),
    ):
        prometheus.record(fact)
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_restarts_total") == 1
    assert value("vapi_learner_lost_ranks_total") == 2


def test_judge_actors_that_are_lost_count_apart(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(JudgeLost("judge-0", "died", [3]))
    value = metrics.registry.get_sample_value
    assert (value("vapi_judges_restarts_total"), value("vapi_actors_restarts_total")) == (1, 0)


def test_a_judged_delivery_counts_its_pictures_and_the_judges_seconds(
    prometheus: Prometheus, metrics: Metrics
) -> None:
    receipt = replace(RECEIPT, judge_seconds=0.5, num_pictures_judged=8)
    for judge in ("judge-0", "judge-1"):
        prometheus.record(TicketDelivered("actor-0", receipt, judge))
    prometheus.record(TicketDelivered("actor-0", RECEIPT))
    value = metrics.registry.get_sample_value
    assert value("vapi_judges_pictures_total") == 16
    assert value("vapi_judges_ticket_seconds_sum") == 1
    assert value("vapi_judges_ticket_seconds_count") == 2
    assert value("vapi_actors_groups_total") == 6


def test_samples_without_a_score_are_counted(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(learned(7, num_dropped=3))
    prometheus.record(learned(8, num_dropped=2))
    assert metrics.registry.get_sample_value("vapi_learner_dropped_samples_total") == 5


def test_a_step_shows_its_terms_its_staleness_and_its_seconds(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(learned(7, staleness=[0, 1, 1], step_seconds=3.0, wait_seconds=0.5, policy_version=8))
    value = metrics.registry.get_sample_value
    assert (value("vapi_learner_step"), value("vapi_learner_policy_version")) == (7, 8)
    assert value("vapi_learner_steps_total") == 1
    assert value("vapi_learner_bad_steps_total") == 0
    losses = {term: value("vapi_learner_loss", {"term": term}) for term in ("total", "policy", "ce", "kl")}
    assert losses == {"total": 1.5, "policy": 1.0, "ce": 5.0, "kl": 0.7}
    rewards = {term: value("vapi_learner_reward", {"term": term}) for term in ("total", "mse", "lpips", "l1")}
    assert rewards == {"total": -0.5, "mse": 0.2, "lpips": 0.3, "l1": 0.4}
    assert value("vapi_learner_clip_fraction_ratio") == 0.25
    assert value("vapi_learner_grad_norm") == 2
    assert (value("vapi_learner_kl"), value("vapi_learner_entropy")) == (0.01, 3.0)
    assert value("vapi_buffer_staleness_versions_bucket", {"le": "0.0"}) == 1
    assert value("vapi_buffer_staleness_versions_count") == 3
    assert value("vapi_learner_step_seconds_sum") == 3
    assert value("vapi_learner_wait_seconds_sum") == 0.5
    assert value("vapi_learner_stage_seconds_sum", {"stage": "optimizer"}) == 0.5


def test_a_step_whose_gradient_was_not_finite_is_counted(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(learned(7, is_bad=True))
    assert metrics.registry.get_sample_value("vapi_learner_bad_steps_total") == 1


def test_weights_and_checkpoints_are_measured(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(Published(3, 0.75, 1234))
    before = time.time()
    prometheus.record(CheckpointWritten(20, Path(), 1.5))
    value = metrics.registry.get_sample_value
    assert value("vapi_weights_bytes") == 1234
    assert value("vapi_checkpoint_step") == 20
    assert value("vapi_weights_publish_seconds_sum") == 0.75
    assert value("vapi_checkpoint_seconds_sum") == 1.5
    written = value("vapi_checkpoint_timestamp_seconds")
    assert written is not None
    assert before <= written <= time.time()


def test_memory_is_that_of_the_largest_actor_since_the_last_step_and_of_the_largest_rank(
    prometheus: Prometheus, metrics: Metrics
) -> None:
    def deliver(**changes: int) -> None:
        prometheus.record(TicketDelivered("actor-0", replace(RECEIPT, **changes)))

    def learn() -> tuple[float | None, ...]:
        prometheus.record(learned(1))
        rooms = ("actors", "learner")
        names = [f"vapi_{room}_{kind}_bytes" for room in rooms for kind in ("memory", "gpu_memory")]
        return tuple(metrics.registry.get_sample_value(name) for name in names)

    deliver(resident_bytes=5000)
    deliver()
    assert learn() == (5000, 500, 3000, 700)
    deliver()
    assert learn() == (1000, 500, 3000, 700)


def state(tickets_learned: int) -> LoopState:
    """Two groups wait, and three actors of five are ready."""
    return LoopState(
        step=0,
        policy_version=0,
        tickets_learned=tickets_learned,
        num_tickets=4,
        groups_learned=0,
        images_skipped=0,
        groups_buffered=2,
        bytes_buffered=100,
        actors={f"actor-{number}": {"node": "n" if number < 3 else ""} for number in range(5)},
        actors_wanted=5,
        actor_restarts=0,
        actors_most=16,
    )


def test_the_state_of_the_moment_is_also_the_drivers_beat(
    prometheus: Prometheus, metrics: Metrics, exporter: Exporter
) -> None:
    prometheus.watch(state(tickets_learned=1))
    value = metrics.registry.get_sample_value
    assert (value("vapi_buffer_groups"), value("vapi_buffer_bytes")) == (2, 100)
    assert value("vapi_buffer_fill_ratio") == 0.5
    assert (value("vapi_actors_wanted"), value("vapi_actors_ready"), value("vapi_actors_pending")) == (5, 3, 2)
    assert (value("vapi_driver_memory_bytes") or 0) > 10e6
    assert exporter.status == "training, 1 of 4 tickets learned"


def test_the_judges_of_the_moment_are_shown_where_there_are_any(prometheus: Prometheus, metrics: Metrics) -> None:
    here = {"node": "n"}
    judges = JudgesState(
        {"judge-0": here, "judge-1": {"node": ""}}, wanted=3, restarts=1, most=16, tickets_waiting=4
    )
    prometheus.watch(replace(state(tickets_learned=1), judges=judges))
    value = metrics.registry.get_sample_value
    assert (value("vapi_judges_wanted"), value("vapi_judges_ready"), value("vapi_judges_pending")) == (3, 1, 2)
    assert value("vapi_judges_waiting_tickets") == 4


def shown_state(metrics: Metrics) -> list[str]:
    value = metrics.registry.get_sample_value
    return [state for state in STATES if value("vapi_driver_state", {"state": state}) == 1]


def test_a_run_is_in_one_state_at_a_time(prometheus: Prometheus, metrics: Metrics) -> None:
    assert shown_state(metrics) == ["starting"]
    for tickets_learned, shown in ((0, "training"), (3, "training"), (4, "scoring")):
        prometheus.watch(state(tickets_learned))
        assert shown_state(metrics) == [shown]
    prometheus.record(LearnerLost("every rank died", "", 0))
    assert shown_state(metrics) == ["starting"]
    for status in ("succeeded", "stopped", "failed"):
        prometheus.record(Ended(status, {"status": status, "steps": 1}))
        assert shown_state(metrics) == [status]


def test_a_run_that_goes_on_shows_the_step_that_it_goes_on_from(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(learned(7))
    prometheus.record(Resumed(5))
    assert metrics.registry.get_sample_value("vapi_learner_step") == 5


def test_the_newest_scores_are_shown_under_names_that_are_known(prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(Scored(0, {"held_out_reward": -0.05, "fd": 12.0, "of_another_version": 1.0}))
    prometheus.record(Scored(20, {"held_out_reward": -0.04}))
    value = metrics.registry.get_sample_value
    assert value("vapi_evaluation_step") == 20
    assert value("vapi_evaluation_score", {"score": "held_out_reward"}) == -0.04
    assert value("vapi_evaluation_score", {"score": "fd"}) == 12
    assert value("vapi_evaluation_score", {"score": "of_another_version"}) is None
    assert value("vapi_evaluation_score", {"score": "fid"}) is None


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_every_fact_is_taken_or_passed_by_and_counted(fact, prometheus: Prometheus, metrics: Metrics) -> None:
    prometheus.record(fact)
    assert metrics.registry.get_sample_value("vapi_driver_events_total", {"event": fact.event}) == 1
