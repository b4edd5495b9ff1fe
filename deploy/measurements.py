"""Turns what the loop sees into Prometheus metrics."""

from collections.abc import Sequence

from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import RolloutBuffer
from common.config.recipe import Recipe
from common.metrics.exporter import Exporter, Metrics
from common.types import GroupReceipt, StepReport


class Measurements:
    def __init__(self, recipe: Recipe, metrics: Metrics, exporter: Exporter):
        self._recipe = recipe
        self._metrics = metrics
        self._exporter = exporter
        self.wanted(recipe.actors.count)
        metrics.set("vapi_buffer_capacity_groups", recipe.buffer_capacity)

    def wanted(self, num_actors: int) -> None:
        self._metrics.set("vapi_actors_wanted", num_actors)

    def delivered(self, receipt: GroupReceipt) -> None:
        add = self._metrics.add
        add("vapi_actors_groups_total", receipt.num_groups)
        add("vapi_actors_samples_total", receipt.num_groups * self._recipe.group.size)
        add("vapi_actors_tokens_total", receipt.num_tokens)
        for stage, seconds in receipt.stage_seconds.items():
            self._metrics.observe("vapi_actors_stage_seconds", seconds, stage=stage)

    def refused(self) -> None:
        self._metrics.add("vapi_buffer_refused_results_total")

    def dropped(self, reason: str, num_groups: int) -> None:
        self._metrics.add("vapi_buffer_dropped_groups_total", num_groups, reason=reason)

    def skipped(self) -> None:
        self._metrics.add("vapi_actors_skipped_images_total")

    def quarantined(self, num_groups: int) -> None:
        self._metrics.add("vapi_actors_quarantined_groups_total", num_groups)

    def actor_lost(self) -> None:
        self._metrics.add("vapi_actors_restarts_total")

    def learned(
        self, report: StepReport, staleness: Sequence[int], step_seconds: float, wait_seconds: float, version: int
    ) -> None:
        metrics = self._metrics
        metrics.add("vapi_learner_steps_total")
        metrics.add("vapi_learner_bad_steps_total", int(report.is_bad))
        metrics.set("vapi_learner_step", report.step)
        metrics.set("vapi_learner_policy_version", version)
        metrics.observe("vapi_learner_step_seconds", step_seconds)
        metrics.observe("vapi_learner_wait_seconds", wait_seconds)
        for stage, seconds in report.stage_seconds.items():
            metrics.observe("vapi_learner_stage_seconds", seconds, stage=stage)
        for versions in staleness:
            metrics.observe("vapi_buffer_staleness_versions", versions)
        for term, value in (("total", report.loss), ("policy", report.policy_loss), ("prior", report.ce_prior)):
            metrics.set("vapi_learner_loss", value, term=term)
        rewards = {"total": report.reward_mean, "mse": report.reward_mse, "lpips": report.reward_lpips}
        for term, value in rewards.items():
            metrics.set("vapi_learner_reward", value, term=term)
        metrics.set("vapi_learner_clip_fraction_ratio", report.clip_fraction)
        metrics.set("vapi_learner_grad_norm", report.grad_norm)

    def published(self, num_bytes: int) -> None:
        self._metrics.set("vapi_weights_bytes", num_bytes)

    def checkpointed(self, step: int, seconds: float) -> None:
        self._metrics.set("vapi_checkpoint_step", step)
        self._metrics.observe("vapi_checkpoint_seconds", seconds)

    def state(self, ledger: Ledger, buffer: RolloutBuffer, num_ready: int) -> None:
        """The gauges of the moment; also the driver's sign of life."""
        self._metrics.set("vapi_buffer_groups", buffer.num_groups)
        self._metrics.set("vapi_buffer_bytes", buffer.num_bytes)
        self._metrics.set("vapi_actors_ready", num_ready)
        self._exporter.beat(f"training, {ledger.num_learned} of {ledger.num_tickets} tickets learned")
