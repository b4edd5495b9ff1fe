"""A sink: what happens in a run as Prometheus metrics, and the gauges of the moment."""

import time
from collections.abc import Callable
from typing import Any

from common.config.recipe import Recipe
from common.facts import (
    ActorLost,
    CheckpointWritten,
    Ended,
    Fact,
    GroupsQuarantined,
    ImageSkipped,
    LearnerLost,
    Published,
    RankLost,
    ResultRefused,
    Resumed,
    RewardsFlat,
    Scored,
    StepLearned,
    TicketDelivered,
    TicketDropped,
)
from common.judge_facts import JudgeLost
from common.machine import resident_bytes
from common.metrics.catalogue import SCORES, STATES
from common.metrics.exporter import Exporter, Metrics
from common.types import GroupReceipt, StepReport
from deploy.runs.status import JudgesState, LoopState


class Prometheus:
    def __init__(self, recipe: Recipe, metrics: Metrics, exporter: Exporter):
        self._recipe = recipe
        self._metrics = metrics
        self._exporter = exporter
        self._receipts: list[GroupReceipt] = []  # since the last step
        metrics.set("vapi_actors_wanted", recipe.actors.count)
        metrics.set("vapi_judges_wanted", recipe.reward.actors.count)
        metrics.set("vapi_buffer_capacity_groups", recipe.buffer_capacity)
        metrics.set("vapi_buffer_capacity_bytes", recipe.buffer.max_bytes)
        metrics.set("vapi_checkpoint_timestamp_seconds", time.time())
        metrics.set("vapi_driver_start_timestamp_seconds", time.time())
        metrics.set("vapi_learner_num_steps", recipe.learner.num_steps)
        metrics.set("vapi_learner_lr", recipe.learner.lr)
        self._show_state("starting")
        self._takes: dict[type[Fact], Callable[[Any], None]] = {
            ActorLost: lambda _: metrics.add("vapi_actors_restarts_total"),
            JudgeLost: lambda _: metrics.add("vapi_judges_restarts_total"),
            RankLost: lambda _: metrics.add("vapi_learner_lost_ranks_total"),
            LearnerLost: lambda _: self._show_state("starting"),
            Resumed: lambda fact: metrics.set("vapi_learner_step", fact.step),
            ResultRefused: lambda _: metrics.add("vapi_buffer_refused_results_total"),
            TicketDelivered: self._delivered,
            TicketDropped: self._dropped,
            ImageSkipped: self._skipped,
            StepLearned: self._learned,
            GroupsQuarantined: self._quarantined,
            RewardsFlat: self._flat,
            Published: self._published,
            CheckpointWritten: self._checkpointed,
            Scored: self._scored,
            Ended: lambda fact: self._show_state(fact.status),
        }

    def record(self, fact: Fact) -> None:
        self._metrics.add("vapi_driver_events_total", event=fact.event)
        take = self._takes.get(type(fact))
        if take is not None:
            take(fact)

    def watch(self, state: LoopState) -> None:
        """The gauges of the moment; also the driver's sign of life."""
        metrics = self._metrics
        metrics.set("vapi_buffer_groups", state.groups_buffered)
        metrics.set("vapi_buffer_bytes", state.bytes_buffered)
        metrics.set("vapi_buffer_fill_ratio", state.groups_buffered / self._recipe.buffer_capacity)
        metrics.set("vapi_actors_wanted", state.actors_wanted)
        metrics.set("vapi_actors_ready", state.actors_ready)
        metrics.set("vapi_actors_pending", max(0, state.actors_wanted - state.actors_ready))
        if state.judges is not None:
            self._show_judges(state.judges)
        self._show_state("training" if state.tickets_learned < state.num_tickets else "scoring")
        metrics.set("vapi_driver_memory_bytes", resident_bytes())
        self._exporter.beat(f"training, {state.tickets_learned} of {state.num_tickets} tickets learned")

    def _show_judges(self, judges: JudgesState) -> None:
        metrics = self._metrics
        metrics.set("vapi_judges_wanted", judges.wanted)
        metrics.set("vapi_judges_ready", judges.ready)
        metrics.set("vapi_judges_pending", max(0, judges.wanted - judges.ready))
        metrics.set("vapi_judges_waiting_tickets", judges.tickets_waiting)

    def _show_state(self, state: str) -> None:
        for each in STATES:
            self._metrics.set("vapi_driver_state", int(each == state), state=each)

    def _delivered(self, fact: TicketDelivered) -> None:
        receipt, add = fact.receipt, self._metrics.add
        add("vapi_actors_images_total", receipt.num_groups + len(receipt.skipped))
        add("vapi_actors_groups_total", receipt.num_groups)
        add("vapi_actors_samples_total", receipt.num_groups * self._recipe.group.size)
        add("vapi_actors_tokens_total", receipt.num_tokens)
        stages = dict(receipt.stage_seconds)
        if "transfer" in stages:
            self._metrics.observe("vapi_weights_pull_seconds", stages.pop("transfer"))
        for stage, seconds in stages.items():
            self._metrics.observe("vapi_actors_stage_seconds", seconds, stage=stage)
        if fact.judge:
            add("vapi_judges_pictures_total", receipt.num_pictures_judged)
            self._metrics.observe("vapi_judges_ticket_seconds", receipt.judge_seconds)
        self._receipts.append(receipt)

    def _dropped(self, fact: TicketDropped) -> None:
        reason = "stale" if fact.reason == "stale" else "lost"
        self._metrics.add("vapi_buffer_dropped_groups_total", fact.num_groups, reason=reason)

    def _skipped(self, fact: ImageSkipped) -> None:
        quarantined, skipped = "vapi_actors_quarantined_groups_total", "vapi_actors_skipped_images_total"
        self._metrics.add(quarantined if fact.image.is_quarantined else skipped)

    def _quarantined(self, fact: GroupsQuarantined) -> None:
        self._metrics.add("vapi_actors_quarantined_groups_total", fact.num_groups)

    def _flat(self, fact: RewardsFlat) -> None:
        self._metrics.add("vapi_learner_flat_groups_total", fact.num_groups)

    def _learned(self, fact: StepLearned) -> None:
        metrics, report = self._metrics, fact.report
        metrics.add("vapi_learner_steps_total")
        metrics.add("vapi_learner_bad_steps_total", int(report.is_bad))
        metrics.add("vapi_learner_dropped_samples_total", report.num_dropped)
        metrics.set("vapi_learner_step", report.step)
        metrics.set("vapi_learner_policy_version", fact.policy_version)
        metrics.observe("vapi_learner_step_seconds", fact.step_seconds)
        metrics.observe("vapi_learner_wait_seconds", fact.wait_seconds)
        for stage, seconds in report.stage_seconds.items():
            metrics.observe("vapi_learner_stage_seconds", seconds, stage=stage)
        for versions in fact.staleness:
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
        for name, mean in report.reward_terms.items():
            metrics.set("vapi_learner_reward", mean, term=name)
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

    def _scored(self, fact: Scored) -> None:
        self._metrics.set("vapi_evaluation_step", fact.step)
        for score in SCORES:
            if score in fact.scores:
                self._metrics.set("vapi_evaluation_score", fact.scores[score], score=score)

    def _published(self, fact: Published) -> None:
        self._metrics.set("vapi_weights_bytes", fact.num_bytes)
        self._metrics.observe("vapi_weights_publish_seconds", fact.seconds)

    def _checkpointed(self, fact: CheckpointWritten) -> None:
        self._metrics.set("vapi_checkpoint_step", fact.step)
        self._metrics.set("vapi_checkpoint_timestamp_seconds", time.time())
        self._metrics.observe("vapi_checkpoint_seconds", fact.seconds)
