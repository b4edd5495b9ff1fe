"""An example of everything that can be told of a run; whatever shows or keeps facts is tested with all of them."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from common.facts import (
    ActorJoined,
    ActorLeft,
    ActorLost,
    ActorPending,
    CheckpointNotCopied,
    CheckpointWritten,
    ChunkLost,
    Ended,
    Fact,
    GroupsQuarantined,
    ImageSkipped,
    LearnerLost,
    PictureSaved,
    Published,
    RankJoined,
    RankLost,
    RankPending,
    ResultRefused,
    Resumed,
    RewardsFlat,
    Scored,
    ScoringStarted,
    SinkFailed,
    Started,
    StepLearned,
    StepSkipped,
    TicketDelivered,
    TicketDropped,
    TrackerFailed,
    TrackingBehind,
)
from common.judge_facts import JudgeJoined, JudgeLeft, JudgeLost, JudgePending, JudgesNotScaled, JudgesScaled
from common.request_facts import Scaled, ScaleRefused, StopAskedFor
from common.types import GroupReceipt, SkippedImage, StepReport
from common.yardstick_facts import YardstickScored, YardstickStarted

REPORT = StepReport(
    step=7,
    num_groups=4,
    loss=1.5,
    policy_loss=1.0,
    ce_prior=5.0,
    reward_mean=-0.5,
    reward_std=0.1,
    clip_fraction=0.25,
    kl=0.01,
    entropy=3.0,
    grad_norm=2.0,
    kl_prior=0.7,
    reward_terms={"mse": 0.2, "lpips": 0.3, "l1": 0.4},
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


def learned(step: int, **changes: Any) -> StepLearned:
    """A step; changes are of the report or of what stands beside it."""
    of_report = {field.name for field in fields(StepReport)}
    report = replace(REPORT, step=step, **{key: value for key, value in changes.items() if key in of_report})
    fact = StepLearned(
        report=report,
        policy_version=step,
        tickets=[2 * step - 2, 2 * step - 1],
        staleness=[0, 1],
        num_actors=2,
        groups_buffered=4,
        step_seconds=3.0,
        wait_seconds=0.5,
        actor_stage_seconds={"decode": 2.0},
    )
    return replace(fact, **{key: value for key, value in changes.items() if key not in of_report})


EXAMPLES: list[Fact] = [
    Started("http://127.0.0.1:9464/metrics", "", 0),
    Started("http://127.0.0.1:9464/metrics", "runs/try/checkpoints/step-000005", 5),
    Resumed(5),
    Ended("succeeded", {"status": "succeeded", "steps": 10, "evaluation": None}),
    Ended("stopped", {"status": "stopped", "steps": 6}),
    Ended("failed", {"status": "failed", "error": "RecipeError: no"}),
    StopAskedFor(),
    Scaled(1, 2, "asked for"),
    ScaleRefused(99999, "99999 reward actors are far beyond this cluster"),
    ActorPending("actor-1", "1 GPU, of which 0 are free"),
    ActorJoined("actor-0", "10.0.0.5", 4711, "cuda:0"),
    ActorLeft("actor-0"),
    ActorLost("actor-0", "died", [3, 4]),
    JudgesScaled(1, 2, "asked for"),
    JudgesNotScaled(99999, "99999 judge actors are far beyond this cluster"),
    JudgePending("judge-1", "1 GPU, of which 0 are free"),
    JudgeJoined("judge-0", "10.0.0.5", 4713, "cuda:0"),
    JudgeLeft("judge-0"),
    JudgeLost("judge-0", "died", [3], [7, 8]),
    RankPending(1, "1 GPU, of which 0 are free"),
    RankJoined(1, 5, "10.0.0.6", 4712),
    RankLost(1, "died", 5, 4712),
    RankLost(None, "out of memory", 5, None),
    LearnerLost("all 2 learner ranks were lost in step 6", "runs/try/checkpoints/step-000005", 5),
    LearnerLost("all 2 learner ranks were lost in step 1", "", 0),
    TicketDelivered("actor-0", RECEIPT),
    TicketDelivered("actor-0", replace(RECEIPT, judge_seconds=0.5, num_pictures_judged=8), "judge-0"),
    ResultRefused("actor-0", 3),
    TicketDropped(3, "stale", 0, 2),
    TicketDropped(4, "groups lost with a node", 1, 2),
    TicketDropped(5, "weights lost with a node", 1, 2),
    ImageSkipped(SkippedImage(7, "a.png", "no picture")),
    ImageSkipped(SkippedImage(8, "b.png", "non-finite reward", is_quarantined=True)),
    learned(7),
    StepSkipped(8, "nan"),
    GroupsQuarantined(8, 2),
    RewardsFlat(8, 2, is_whole_step=False),
    RewardsFlat(9, 4, is_whole_step=True),
    Published(7, 0.75, 1234),
    CheckpointWritten(5, Path("runs/try/checkpoints/step-000005"), 1.5),
    CheckpointNotCopied(5, "no network"),
    ChunkLost("actor-0", 3, 5, "weights lost with a node"),
    ScoringStarted(5, "the policy"),
    Scored(5, {"held_out_reward": -0.05, "fd": 10.0}),
    Scored(6, {"fd": 10.0}),
    YardstickStarted("cross-entropy alone"),
    YardstickScored("cross-entropy alone", {"held_out_reward": -0.05}),
    YardstickScored("the base at temperature 0.8", {"fd": 10.0}),
    PictureSaved(5, Path("runs/try/samples/step-000005.png")),
    TrackerFailed("wandb", "OSError: no network"),
    TrackingBehind(10_000),
    SinkFailed("Prometheus", "ValueError: no"),
]


def as_event(fact: Fact) -> dict[str, Any]:
    """The fact as events.jsonl has it, but for the time."""
    return {"event": fact.event, **fact.told()}
