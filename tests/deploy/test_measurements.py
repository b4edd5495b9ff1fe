"""What the driver's loop sees, as Prometheus metrics."""

from collections.abc import Iterator

import pytest

from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import BufferedTicket, RolloutBuffer
from common.config.recipe import Recipe
from common.config.service import MetricsSection
from common.metrics.exporter import Exporter, Metrics
from common.types import GroupReceipt, StepReport
from deploy.measurements import Measurements

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
    stage_seconds={"optimizer": 0.5},
)
RECEIPT = GroupReceipt(
    3, 0, num_groups=2, num_bytes=100, skipped=(), stage_seconds={"decode": 2.0}, num_tokens=512
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


def test_a_delivery_counts_groups_samples_and_tokens(measurements: Measurements, metrics: Metrics) -> None:
    measurements.delivered(RECEIPT)
    measurements.delivered(RECEIPT)
    value = metrics.registry.get_sample_value
    assert value("vapi_actors_groups_total") == 4
    assert value("vapi_actors_samples_total") == 16  # groups of 4
    assert value("vapi_actors_tokens_total") == 1024
    assert value("vapi_actors_stage_seconds_sum", {"stage": "decode"}) == 4


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


def test_a_step_shows_its_terms_its_staleness_and_its_seconds(
    measurements: Measurements, metrics: Metrics
) -> None:
    measurements.learned(REPORT, staleness=[0, 1, 1], step_seconds=3.0, wait_seconds=0.5, version=8)
    value = metrics.registry.get_sample_value
    assert (value("vapi_learner_step"), value("vapi_learner_policy_version")) == (7, 8)
    assert value("vapi_learner_steps_total") == 1
    losses = {term: value("vapi_learner_loss", {"term": term}) for term in ("total", "policy", "prior")}
    assert losses == {"total": 1.5, "policy": 1.0, "prior": 5.0}
    rewards = {term: value("vapi_learner_reward", {"term": term}) for term in ("total", "mse", "lpips")}
    assert rewards == {"total": -0.5, "mse": 0.2, "lpips": 0.3}
    assert value("vapi_learner_clip_fraction_ratio") == 0.25
    assert value("vapi_learner_grad_norm") == 2
    assert value("vapi_buffer_staleness_versions_bucket", {"le": "0.0"}) == 1
    assert value("vapi_buffer_staleness_versions_count") == 3
    assert value("vapi_learner_step_seconds_sum") == 3
    assert value("vapi_learner_wait_seconds_sum") == 0.5
    assert value("vapi_learner_stage_seconds_sum", {"stage": "optimizer"}) == 0.5


def test_weights_and_checkpoints_are_measured(measurements: Measurements, metrics: Metrics) -> None:
    measurements.published(1234)
    measurements.checkpointed(20, 1.5)
    value = metrics.registry.get_sample_value
    assert value("vapi_weights_bytes") == 1234
    assert value("vapi_checkpoint_step") == 20
    assert value("vapi_checkpoint_seconds_sum") == 1.5


def test_the_state_of_the_moment_is_also_the_drivers_beat(
    measurements: Measurements, metrics: Metrics, exporter: Exporter
) -> None:
    buffer = RolloutBuffer(1000)
    buffer.put(BufferedTicket(RECEIPT, None))
    ledger = Ledger(num_steps=2, tickets_per_step=2, samples_per_ticket=2, max_staleness=0)
    ledger.restore({"learned_below": 1, "learned_beyond": []})
    measurements.state(ledger, buffer, num_ready=3)
    value = metrics.registry.get_sample_value
    assert (value("vapi_buffer_groups"), value("vapi_buffer_bytes")) == (2, 100)
    assert value("vapi_actors_ready") == 3
    assert exporter.status == "training, 1 of 4 tickets learned"
