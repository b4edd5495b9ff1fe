"""Turns what the loop sees into Prometheus metrics."""

import time
from collections.abc import Sequence

from common.buffer.ledger import Ledger
from common.buffer.rollout_buffer import RolloutBuffer
from common.config.recipe import Recipe
from common.machine import resident_bytes
from common.metrics.exporter import Exporter, Metrics
from common.types import GroupReceipt, StepReport

COUNTED_EVENTS = {"actor_lost": "vapi_actors_restarts_total", "rank_lost": "vapi_learner_lost_ranks_total"}


class Measurements:
    def __init__(self, recipe: Recipe, metrics: Metrics, exporter: Exporter):
        self._recipe = recipe
        self._metrics = metrics
        self._exporter = exporter
        self._num_wanted = 0
        self._receipts: list[GroupReceipt] = []  # since the last step
        self.wanted(recipe.actors.count)
        metrics.set("vapi_buffer_capacity_groups", recipe.buffer_capacity)
        metrics.set("vapi_buffer_capacity_bytes", recipe.buffer.max_bytes)
        metrics.set("vapi_checkpoint_timestamp_seconds", time.time())

    def event(self, kind: str) -> None:
        """Count an event of the pool or of the learner group, where it is one to count."""
        if kind in COUNTED_EVENTS:
            self._metrics.add(COUNTED_EVENTS[kind])

    def wanted(self, num_actors: int) -> None:
        self._num_wanted = num_actors
        self._metrics.set("vapi_actors_wanted", num_actors)

    def delivered(self, receipt: GroupReceipt) -> None:
        add = self._metrics.add
        add("vapi_actors_images_total", receipt.num_groups + len(receipt.skipped))
        add("vapi_actors_groups_total", receipt.num_groups)
        add("vapi_actors_samples_total", receipt.num_groups * self._recipe.group.size)
        add("vapi_actors_tokens_total", receipt.num_tokens)
        stages = dict(receipt.stage_seconds)
        if "transfer" in stages:
            self._metrics.observe("vapi_weights_pull_seconds", stages.pop("transfer"))
        for stage, seconds in stages.items():
            self._metrics.observe("vapi_actors_stage_seconds", seconds, stage=stage)
        self._receipts.append(receipt)

    def refused(self) -> None:
        self._metrics.add("vapi_buffer_refused_results_total")

    def dropped(self, reason: str, num_groups: int) -> None:
        self._metrics.add("vapi_buffer_dropped_groups_total", num_groups, reason=reason)

    def skipped(self) -> None:
        self._metrics.add("vapi_actors_skipped_images_total")

    def quarantined(self, num_groups: int) -> None:
        self._metrics.add("vapi_actors_quarantined_groups_total", num_groups)

    def actor_lost(self) -> None:
        self.event("actor_lost")

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
        self._show_quality(report)
        self._show_memory(report)

    def _show_quality(self, report: StepReport) -> None:
        metrics = self._metrics
        metrics.set("vapi_learner_loss", report.loss, term="total")
        metrics.set("vapi_learner_loss", report.policy_loss, term="policy")
        metrics.set("vapi_learner_loss", report.ce_prior, term="ce")
        metrics.set("vapi_learner_loss", report.kl_prior, term="kl")
        metrics.set("vapi_learner_reward", report.reward_mean, term="total")
        metrics.set("vapi_learner_reward", report.reward_mse, term="mse")
        metrics.set("vapi_learner_reward", report.reward_lpips, term="lpips")
        metrics.set("vapi_learner_reward", report.reward_l1, term="l1")
        metrics.set("vapi_learner_clip_fraction_ratio", report.clip_fraction)
        metrics.set("vapi_learner_grad_norm", report.grad_norm)
        metrics.set("vapi_learner_kl", report.kl)
        metrics.set("vapi_learner_entropy", report.entropy)

    def _show_memory(self, report: StepReport) -> None:
        """Of actors the largest: they come and go, so a series for each would never end."""
        self._metrics.set("vapi_learner_memory_bytes", report.resident_bytes)
        self._metrics.set("vapi_learner_gpu_memory_bytes", report.gpu_peak_bytes)
        if self._receipts:
            largest = max(receipt.resident_bytes for receipt in self._receipts)
            self._metrics.set("vapi_actors_memory_bytes", largest)
            most = max(receipt.gpu_peak_bytes for receipt in self._receipts)
            self._metrics.set("vapi_actors_gpu_memory_bytes", most)
        self._receipts.clear()

    def published(self, num_bytes: int) -> None:
        self._metrics.set("vapi_weights_bytes", num_bytes)

    def publication(self, seconds: float) -> None:
        self._metrics.observe("vapi_weights_publish_seconds", seconds)

    def checkpointed(self, step: int, seconds: float) -> None:
        self._metrics.set("vapi_checkpoint_step", step)
        self._metrics.set("vapi_checkpoint_timestamp_seconds", time.time())
        self._metrics.observe("vapi_checkpoint_seconds", seconds)

    def state(self, ledger: Ledger, buffer: RolloutBuffer, num_ready: int) -> None:
        """The gauges of the moment; also the driver's sign of life."""
        metrics = self._metrics
        metrics.set("vapi_buffer_groups", buffer.num_groups)
        metrics.set("vapi_buffer_bytes", buffer.num_bytes)
        metrics.set("vapi_buffer_fill_ratio", buffer.num_groups / self._recipe.buffer_capacity)
        metrics.set("vapi_actors_ready", num_ready)
        metrics.set("vapi_actors_pending", max(0, self._num_wanted - num_ready))
        metrics.set("vapi_driver_training", int(ledger.num_learned < ledger.num_tickets))
        metrics.set("vapi_driver_memory_bytes", resident_bytes())
        self._exporter.beat(f"training, {ledger.num_learned} of {ledger.num_tickets} tickets learned")

    def ended(self) -> None:
        """The loop is done: nobody waits for a step."""
        self._metrics.set("vapi_driver_training", 0)
