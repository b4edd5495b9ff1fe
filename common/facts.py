"""What happens in a run. Each fact is told once, to the recorder, which hands it to whoever shows or keeps it.

`event` is the fact's name in events.jsonl, and `told()` what stands beside it there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from common.types import GroupReceipt, SkippedImage, StepReport


@dataclass(frozen=True)
class Fact:
    @property
    def event(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def told(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Started(Fact):
    metrics: str  # the URL of the Prometheus endpoint
    resumed_from: str  # the checkpoint; empty for a run that starts anew
    step: int


@dataclass(frozen=True)
class Resumed(Fact):
    """The run goes on from `step`: what came after it comes again."""

    step: int


@dataclass(frozen=True)
class Ended(Fact):
    status: Literal["succeeded", "stopped", "failed"]
    summary: Mapping[str, Any]  # what summary.json holds

    @property
    def event(self) -> str:
        return self.status

    def told(self) -> dict[str, Any]:
        return {key: self.summary[key] for key in ("steps", "error") if key in self.summary}


@dataclass(frozen=True)
class StopAskedFor(Fact):
    """By `stop`; the running step is finished first."""


@dataclass(frozen=True)
class Scaled(Fact):
    before: int  # actors wanted
    after: int
    reason: str


@dataclass(frozen=True)
class ActorPending(Fact):
    actor: str
    needs: str  # what it waits for, and what is free


@dataclass(frozen=True)
class ActorJoined(Fact):
    actor: str
    node: str
    pid: int
    device: str


@dataclass(frozen=True)
class ActorLeft(Fact):
    """It was scaled away, and had finished what it had."""

    actor: str


@dataclass(frozen=True)
class ActorLost(Fact):
    """It died or hung. Others roll its tickets out again."""

    actor: str
    reason: str
    tickets: Sequence[int]


@dataclass(frozen=True)
class RankPending(Fact):
    rank: int
    needs: str


@dataclass(frozen=True)
class RankJoined(Fact):
    rank: int
    step: int
    node: str
    pid: int


@dataclass(frozen=True)
class RankLost(Fact):
    rank: int | None  # None: a replacement that could not load
    reason: str
    step: int
    pid: int | None


@dataclass(frozen=True)
class LearnerLost(Fact):
    """Every rank was lost; the service begins again."""

    reason: str
    resumed_from: str  # the checkpoint; empty where there was none yet
    step: int


@dataclass(frozen=True)
class TicketDelivered(Fact):
    actor: str
    receipt: GroupReceipt

    def told(self) -> dict[str, Any]:
        receipt = self.receipt
        return {
            "actor": self.actor,
            "ticket": receipt.ticket_id,
            "version": receipt.policy_version,
            "num_groups": receipt.num_groups,
        }


@dataclass(frozen=True)
class ResultRefused(Fact):
    """An actor that had lost its ticket answered after all."""

    actor: str
    ticket: int


@dataclass(frozen=True)
class TicketDropped(Fact):
    """It is rolled out again."""

    ticket: int
    reason: str  # "stale", or what was "lost with a node"
    version: int  # of the policy that sampled
    num_groups: int


@dataclass(frozen=True)
class ImageSkipped(Fact):
    image: SkippedImage

    def told(self) -> dict[str, Any]:
        return asdict(self.image)


@dataclass(frozen=True)
class StepLearned(Fact):
    report: StepReport
    policy_version: int  # published after the step
    tickets: Sequence[int]
    staleness: Sequence[int]  # of each ticket that has groups
    num_actors: int
    groups_buffered: int
    step_seconds: float  # since the publication before
    wait_seconds: float  # in which the learner had nothing to learn from
    actor_stage_seconds: Mapping[str, float]  # over all tickets

    @classmethod
    def alone(cls, report: StepReport, step_seconds: float) -> Self:
        """Of a process that is actor and learner in one, and waits for nobody."""
        return cls(report, report.step, (), (), 0, 0, step_seconds, 0.0, {})

    def told(self) -> dict[str, Any]:
        return {"step": self.report.step, "tickets": self.tickets}

    def metrics(self) -> dict[str, Any]:
        """The step's line of metrics.jsonl."""
        return {
            **self.report.line(),
            "policy_version": self.policy_version,
            "staleness_max": max(self.staleness, default=0),
            "staleness_mean": sum(self.staleness) / max(1, len(self.staleness)),
            "num_actors": self.num_actors,
            "groups_buffered": self.groups_buffered,
            "step_seconds": self.step_seconds,
            "wait_seconds": self.wait_seconds,
            "actor_stage_seconds": dict(self.actor_stage_seconds),
        }


@dataclass(frozen=True)
class StepSkipped(Fact):
    """The gradient was not finite: weights and optimizer are as before the step."""

    step: int
    grad_norm: str


@dataclass(frozen=True)
class GroupsQuarantined(Fact):
    """The learner found numbers in them that are not finite, and left them out."""

    step: int
    num_groups: int


@dataclass(frozen=True)
class RewardsFlat(Fact):
    """Groups whose samples all have the same reward: they teach nothing, and a term may be broken."""

    step: int
    num_groups: int
    is_whole_step: bool  # nothing was learned from the reward

    @classmethod
    def of(cls, report: StepReport) -> Self:
        return cls(report.step, report.num_flat, is_whole_step=report.num_flat == report.num_groups)


@dataclass(frozen=True)
class Published(Fact):
    """Actors can pull the weights of a policy version."""

    version: int
    seconds: float


@dataclass(frozen=True)
class CheckpointWritten(Fact):
    step: int
    path: Path
    seconds: float

    @property
    def event(self) -> str:
        return "checkpoint"

    def told(self) -> dict[str, Any]:
        return {"step": self.step, "path": str(self.path), "seconds": self.seconds}


@dataclass(frozen=True)
class CheckpointNotCopied(Fact):
    """checkpoint.url could not be written to; the run folder has the checkpoint."""

    step: int
    reason: str


@dataclass(frozen=True)
class Scored(Fact):
    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class PictureSaved(Fact):
    step: int
    path: Path

    def told(self) -> dict[str, Any]:
        return {"step": self.step, "path": str(self.path)}


@dataclass(frozen=True)
class TrackerFailed(Fact):
    """It gets nothing more."""

    tracker: str
    reason: str


@dataclass(frozen=True)
class TrackingBehind(Fact):
    """Trackers are so slow that what comes is dropped."""

    capacity: int


@dataclass(frozen=True)
class SinkFailed(Fact):
    """A sink of the recorder raised; the run goes on, and the sink is told of what comes."""

    sink: str
    reason: str
