"""Every Prometheus metric of the service: name, kind, help, labels. There are no other metrics.

Names are vapi_<room>_<thing>_<unit>; counters end in _total; units are base units. Source of `docs/metrics.md`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    values: tuple[str, ...] = ()  # of the label
    from_start: bool = True  # all values are exported from the start, at 0
    buckets: tuple[float, ...] = ()


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
VERSIONS = (0, 1, 2, 3, 4, 6, 8, 12, 16)

ACTOR_STAGES = ("read", "encode", "policy", "sample", "decode", "perceptual", "score", "gradient")
LEARNER_STAGES = ("fetch", "forward_backward", "optimizer")
DROP_REASONS = ("stale", "lost")
STATES = ("starting", "training", "scoring", "succeeded", "stopped", "failed")
SCORES = (
    "held_out_reward", "held_out_psnr", "held_out_cross_entropy",
    "fd", "fid", "fd_efficientnet", "inception_score", "accuracy", "precision", "recall", "nearest_training",
    "clip", "hps", "pickscore", "aesthetic",
)  # fmt: skip
EVENTS = (
    "started", "resumed", "succeeded", "stopped", "failed", "stop_asked_for", "scaled", "scale_refused",
    "actor_pending", "actor_joined", "actor_left", "actor_lost",
    "judges_scaled", "judges_not_scaled", "judge_pending", "judge_joined", "judge_left", "judge_lost",
    "rank_pending", "rank_joined", "rank_lost", "learner_lost",
    "ticket_delivered", "result_refused", "ticket_dropped", "image_skipped",
    "step_learned", "step_skipped", "groups_quarantined", "rewards_flat", "published",
    "checkpoint", "checkpoint_not_copied", "scoring_started", "chunk_lost", "scored", "yardstick_started",
    "yardstick_scored", "picture_saved",
    "tracker_failed", "tracking_behind", "sink_failed",
)  # fmt: skip

CATALOGUE = (
    Metric("vapi_actors_images_total", "counter", "Source images accounted for: rolled out or skipped."),
    Metric("vapi_actors_groups_total", "counter", "Groups delivered by reward actors."),
    Metric("vapi_actors_samples_total", "counter", "Samples decoded and scored."),
    Metric("vapi_actors_tokens_total", "counter", "Tokens sampled."),
    Metric("vapi_actors_skipped_images_total", "counter", "Source images that could not be decoded."),
    Metric("vapi_actors_quarantined_groups_total", "counter",
           "Groups left out: a number is not finite, or a reward term failed."),
    Metric("vapi_actors_stage_seconds", "histogram", "Seconds of a ticket by stage.",
           "stage", ACTOR_STAGES, buckets=SECONDS),
    Metric("vapi_actors_wanted", "gauge", "Reward actors requested by the run."),
    Metric("vapi_actors_ready", "gauge", "Reward actors that are ready."),
    Metric("vapi_actors_pending", "gauge", "Reward actors that are loading or waiting for resources."),
    Metric("vapi_actors_restarts_total", "counter", "Reward actors replaced after a loss."),
    Metric("vapi_actors_memory_bytes", "gauge", "Bytes in RAM of the largest reward actor in the last step."),
    Metric("vapi_actors_gpu_memory_bytes", "gauge", "Bytes of GPU memory at the peak of the largest actor."),
    Metric("vapi_judges_wanted", "gauge", "Judge actors requested by the run; 0: the reward is measured within."),
    Metric("vapi_judges_ready", "gauge", "Judge actors that are ready."),
    Metric("vapi_judges_pending", "gauge", "Judge actors that are loading or waiting for resources."),
    Metric("vapi_judges_restarts_total", "counter", "Judge actors replaced after a loss."),
    Metric("vapi_judges_waiting_tickets", "gauge", "Tickets rolled out that no judge actor has yet."),
    Metric("vapi_judges_pictures_total", "counter", "Pictures of tickets judged by judge actors."),
    Metric("vapi_judges_ticket_seconds", "histogram",
           "Seconds of a judge actor for a ticket, its pictures' way included.", buckets=SECONDS),
    Metric("vapi_buffer_groups", "gauge", "Scored groups waiting for the learner."),
    Metric("vapi_buffer_bytes", "gauge", "Bytes of those groups in the object store."),
    Metric("vapi_buffer_capacity_groups", "gauge", "Groups that may be admitted and not yet published."),
    Metric("vapi_buffer_capacity_bytes", "gauge", "Bytes that those groups may take (buffer.max_bytes)."),
    Metric("vapi_buffer_fill_ratio", "gauge", "Waiting groups as a share of the capacity."),
    Metric("vapi_buffer_dropped_groups_total", "counter", "Groups dropped and rolled out again.",
           "reason", DROP_REASONS),
    Metric("vapi_buffer_refused_results_total", "counter", "Results refused: the actor had lost its ticket."),
    Metric("vapi_buffer_staleness_versions", "histogram", "Policy versions between sampling and learning.",
           buckets=VERSIONS),
    Metric("vapi_learner_step", "gauge", "Optimizer steps done."),
    Metric("vapi_learner_num_steps", "gauge", "Optimizer steps requested by the run."),
    Metric("vapi_learner_lr", "gauge", "Learning rate of the optimizer."),
    Metric("vapi_learner_steps_total", "counter", "Optimizer steps of this process."),
    Metric("vapi_learner_bad_steps_total", "counter", "Steps skipped for a gradient that is not finite."),
    Metric("vapi_learner_flat_groups_total", "counter",
           "Groups whose samples all have the same reward: they teach nothing."),
    Metric("vapi_learner_dropped_samples_total", "counter",
           "Samples that a judge gave no score: they teach nothing."),
    Metric("vapi_learner_lost_ranks_total", "counter", "Learner ranks lost; others go on or take their place."),
    Metric("vapi_learner_policy_version", "gauge", "Policy versions published."),
    Metric("vapi_learner_step_seconds", "histogram", "Seconds from one publication to the next.", buckets=SECONDS),
    Metric("vapi_learner_wait_seconds", "histogram", "Seconds the learner waited for groups.", buckets=SECONDS),
    Metric("vapi_learner_stage_seconds", "histogram", "Seconds of a step by stage.",
           "stage", LEARNER_STAGES, buckets=SECONDS),
    Metric("vapi_learner_loss", "gauge",
           "Loss of the last step, and its terms before β; the prior is ce or kl, by learner.prior.",
           "term", ("total", "policy", "ce", "kl")),
    Metric("vapi_learner_reward", "gauge", "Mean reward of the last step, and its terms before their weights.",
           "term", ("total",)),
    Metric("vapi_learner_clip_fraction_ratio", "gauge", "Share of tokens whose ratio left the clip range."),
    Metric("vapi_learner_grad_norm", "gauge", "Gradient norm before clipping."),
    Metric("vapi_learner_kl", "gauge", "KL(behaviour policy ‖ policy), nats per token."),
    Metric("vapi_learner_entropy", "gauge", "Entropy of the policy, nats per token."),
    Metric("vapi_learner_memory_bytes", "gauge", "Bytes in RAM of the largest learner rank."),
    Metric("vapi_learner_gpu_memory_bytes", "gauge", "Bytes of GPU memory at the peak of the largest rank."),
    Metric("vapi_weights_bytes", "gauge", "Bytes of a published policy version."),
    Metric("vapi_weights_publish_seconds", "histogram", "Seconds to publish a policy version.", buckets=SECONDS),
    Metric("vapi_weights_pull_seconds", "histogram", "Seconds for an actor to load a version.", buckets=SECONDS),
    Metric("vapi_checkpoint_seconds", "histogram", "Seconds to write a checkpoint.", buckets=SECONDS),
    Metric("vapi_checkpoint_step", "gauge", "Step of the newest checkpoint."),
    Metric("vapi_checkpoint_timestamp_seconds", "gauge",
           "Seconds since 1970 when the newest checkpoint was written; before the first, when the run began."),
    Metric("vapi_evaluation_score", "gauge",
           "Newest scores of held-out images and of free-running samples; absent before the first.",
           "score", SCORES, from_start=False),
    Metric("vapi_evaluation_step", "gauge", "Step of the newest scores."),
    Metric("vapi_driver_state", "gauge",
           "One for the current state of the run, else 0; scoring follows the last step.",
           "state", STATES),
    Metric("vapi_driver_start_timestamp_seconds", "gauge", "Seconds since 1970 when the driver started."),
    Metric("vapi_driver_events_total", "counter", "Events, by their names in events.jsonl.", "event", EVENTS),
    Metric("vapi_driver_memory_bytes", "gauge", "Bytes in RAM of the driver."),
)  # fmt: skip
