"""What the driver's loop sees, as Prometheus metrics."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from deploy.runs.measurements import Measurements

from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import BufferedTicket, RolloutBuffer
from common.config.recipe import Recipe
from common.config.service import MetricsSection
from common.metrics.exporter import Exporter, Metrics
from common.types import GroupReceipt, SkippedImage, StepReport

REPORT = StepReport(
    step=7,
    num_groups=4,
    loss=1.5,
    policy_loss=1.0,
    ce_prior=5.0,
    reward_mean=-0.5,
    reward_mse=0.2,
    reward_lpips=0.3,
    reward_std=0.1,
    clip_fraction=0.25,
    kl=0.01,
    entropy=3.0,
    grad_norm=2.0,
    kl_prior=0.7,
    reward_l1=0.4,
    stage_seconds={"optimizer": 0.5},
    resident_bytes=3000,
    gpu_peak_bytes=700,
)
RECEIPT = GroupReceipt(
    ticket_id=3,
    policy_version=0,
    num_groups=2,
    num_bytes=100,
    skipped=(SkippedImage(0, "a.png", "no picture"),),
    stage_seconds={"decode": 2.0, "transfer": 0.25},
    num_tokens=512,
    resident_bytes=1000,
    gpu_peak_bytes=500,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def exporter(metrics: Metrics) -> Iterator[Exporter]:
    exporter = Exporter(metrics, MetricsSection(port=0))
    yield exporter
    exporter.close()


@pytest.fixture
def measurements(tiny_recipe: Recipe, metrics: Metrics, exporter: Exporter) -> Measurements:
    return Measurements(tiny_recipe, metrics, exporter)


def test_the_run_is_announced(measurements: Measurements, metrics: Metrics) -> None:
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_wanted") == 1
    assert value("vapi_buffer_capacity_groups") == 4
    assert value("vapi_buffer_capacity_bytes") == 1 << 30
    began = value("vapi_checkpoint_timestamp_seconds")
    assert began == pytest.approx(time.time(), abs=60)


def test_a_delivery_counts_groups_samples_and_tokens(measurements: Measurements, metrics: Metrics) -> None:
    measurements.delivered(RECEIPT)
    measurements.delivered(RECEIPT)
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_groups_total") == 4
    assert value("vapi_actors_samples_total") == 16  # groups of 4
    assert value("vapi_actors_tokens_total") == 1024
    assert value("vapi_actors_images_total") == 6
    assert value("vapi_actors_stage_seconds_sum", {"stage": "decode"}) == 4
    assert value("vapi_actors_stage_seconds_sum", {"stage": "transfer"}) is None
    assert value("vapi_weights_pull_seconds_sum") == 0.5
    assert value("vapi_weights_pull_seconds_count") == 2


def test_a_ticket_that_needed_no_newer_weights_counts_as_no_pull(
    measurements: Measurements, metrics: Metrics
) -> None:
    measurements.delivered(replace(RECEIPT, stage_seconds={"decode": 2.0}))
    assert metrics.registry.get_sample_value("vapi_weights_pull_seconds_count") == 0


def test_what_goes_wrong_is_counted(measurements: Measurements, metrics: Metrics) -> None:
    measurements.refused()
    measurements.dropped("stale", 8)
    measurements.skipped()
    measurements.actor_lost()
    value = metrics.registry.get_sample_value
    assert value("vapi_buffer_refused_results_total") == 1
    assert value("vapi_buffer_dropped_groups_total", {"reason": "stale"}) == 8
    assert value("vapi_actors_skipped_images_total") == 1
    assert value("vapi_actors_restarts_total") == 1


def test_losses_that_the_pool_and_the_learner_group_tell_of_are_counted(
    measurements: Measurements, metrics: Metrics
) -> None:
    for kind in ("actor_joined", "actor_lost", "rank_lost", "rank_lost", "rank_joined"):
        measurements.event(kind)
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_restarts_total") == 1
    assert value("vapi_learner_lost_ranks_total") == 2


def test_a_step_shows_its_terms_its_staleness_and_its_seconds(
    measurements: Measurements, metrics: Metrics
) -> None:
    measurements.learned(REPORT, staleness=[0, 1, 1], step_seconds=3.0, wait_seconds=0.5, version=8)
    value = metrics.registry.get_sample_value
    assert (value("vapi_learner_step"), value("vapi_learner_policy_version")) == (7, 8)
    assert value("vapi_learner_steps_total") == 1
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


def test_weights_and_checkpoints_are_measured(measurements: Measurements, metrics: Metrics) -> None:
    measurements.published(1234)
    measurements.publication(0.75)
    before = time.time()
    measurements.checkpointed(20, 1.5)
    value = metrics.registry.get_sample_value
    assert value("vapi_weights_bytes") == 1234
    assert value("vapi_checkpoint_step") == 20
    assert value("vapi_weights_publish_seconds_sum") == 0.75
    assert value("vapi_checkpoint_seconds_sum") == 1.5
    written = value("vapi_checkpoint_timestamp_seconds")
    assert written is not None
    assert before <= written <= time.time()


def test_memory_is_that_of_the_largest_actor_since_the_last_step_and_of_the_largest_rank(
    measurements: Measurements, metrics: Metrics
) -> None:
    def learn() -> tuple[float | None, ...]:
        measurements.learned(REPORT, [0], step_seconds=1.0, wait_seconds=0.0, version=1)
        rooms = ("actors", "learner")
        names = [f"vapi_{room}_{kind}_bytes" for room in rooms for kind in ("memory", "gpu_memory")]
        return tuple(metrics.registry.get_sample_value(name) for name in names)

    measurements.delivered(replace(RECEIPT, resident_bytes=5000))
    measurements.delivered(RECEIPT)
    assert learn() == (5000, 500, 3000, 700)
    measurements.delivered(RECEIPT)
    assert learn() == (1000, 500, 3000, 700)


def test_the_state_of_the_moment_is_also_the_drivers_beat(
    measurements: Measurements, metrics: Metrics, exporter: Exporter
) -> None:
    buffer = RolloutBuffer(1000)
    buffer.put(BufferedTicket(RECEIPT, None))
    ledger = Ledger(num_steps=2, tickets_per_step=2, samples_per_ticket=2, max_staleness=0)
    ledger.restore({"learned_below": 1, "learned_beyond": []})
    measurements.wanted(5)
    measurements.state(ledger, buffer, num_ready=3)
    value = metrics.registry.get_sample_value
    assert (value("vapi_buffer_groups"), value("vapi_buffer_bytes")) == (2, 100)
    assert value("vapi_buffer_fill_ratio") == 0.5
    assert (value("vapi_actors_ready"), value("vapi_actors_pending")) == (3, 2)
    assert (value("vapi_driver_memory_bytes") or 0) > 10e6
    assert value("vapi_driver_training") == 1
    assert exporter.status == "training, 1 of 4 tickets learned"


def test_nobody_waits_for_a_step_once_all_are_done_or_the_loop_has_ended(
    measurements: Measurements, metrics: Metrics
) -> None:
    def is_training(learned_below: int) -> float | None:
        ledger = Ledger(num_steps=2, tickets_per_step=2, samples_per_ticket=2, max_staleness=0)
        ledger.restore({"learned_below": learned_below, "learned_beyond": []})
        measurements.state(ledger, RolloutBuffer(1000), num_ready=1)
        return metrics.registry.get_sample_value("vapi_driver_training")

    assert (is_training(3), is_training(4), is_training(0)) == (1, 0, 1)
    measurements.ended()
    assert metrics.registry.get_sample_value("vapi_driver_training") == 0
