"""The events of a run. Each fact is reported once, to the recorder, which passes it to its sinks.

`event` is the fact's name in events.jsonl; `told()` gives its other fields there.
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
    resumed_from: str  # the checkpoint; empty for a new run
    step: int


@dataclass(frozen=True)
class Resumed(Fact):
    """The run continues from `step`; later steps are repeated."""

    step: int


@dataclass(frozen=True)
class Ended(Fact):
    status: Literal["succeeded", "stopped", "failed"]
    summary: Mapping[str, Any]  # the contents of summary.json

    @property
    def event(self) -> str:
        return self.status

    def told(self) -> dict[str, Any]:
        return {key: self.summary[key] for key in ("steps", "error") if key in self.summary}


@dataclass(frozen=True)
class ActorPending(Fact):
    actor: str
    needs: str  # the resources it waits for, and the free ones


@dataclass(frozen=True)
class ActorJoined(Fact):
    actor: str
    node: str
    pid: int
    device: str


@dataclass(frozen=True)
class ActorLeft(Fact):
    """An actor was scaled away after finishing its work."""

    actor: str


@dataclass(frozen=True)
class ActorLost(Fact):
    """An actor died or hung. Others roll its tickets out again."""

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
    """Every rank was lost; the service restarts."""

    reason: str
    resumed_from: str  # the checkpoint; empty if there was none yet
    step: int


@dataclass(frozen=True)
class TicketDelivered(Fact):
    actor: str
    receipt: GroupReceipt
    judge: str = ""  # actor that completed it

    def told(self) -> dict[str, Any]:
        of = self.receipt
        told = {"ticket": of.ticket_id, "version": of.policy_version, "num_groups": of.num_groups}
        return {"actor": self.actor, **told} | ({"judge": self.judge} if self.judge else {})


@dataclass(frozen=True)
class ResultRefused(Fact):
    """A late result of an actor that had lost its ticket."""

    actor: str
    ticket: int


@dataclass(frozen=True)
class TicketDropped(Fact):
    """A ticket whose groups were dropped; it is rolled out again."""

    ticket: int
    reason: str  # "stale", or "… lost with a node"
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
    staleness: Sequence[int]  # of each ticket with groups
    num_actors: int
    groups_buffered: int
    step_seconds: float  # since the previous publication
    wait_seconds: float  # during which the learner had nothing to learn from
    actor_stage_seconds: Mapping[str, float]  # over all tickets
    num_judges: int = 0  # judge actors
    judge_seconds: float = 0.0  # theirs, over all tickets

    @classmethod
    def alone(cls, report: StepReport, step_seconds: float) -> Self:
        """A step of a process that is actor and learner in one, and never waits."""
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
            "num_judges": self.num_judges,
            "judge_seconds": self.judge_seconds,
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
    """The learner found non-finite numbers in these groups and left them out."""

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
    version: int
    seconds: float  # from the copy out of the learner until actors can fetch it
    num_bytes: int


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
    """Writing to checkpoint.url failed; the run folder has the checkpoint."""

    step: int
    reason: str


@dataclass(frozen=True)
class ScoringStarted(Fact):
    step: int  # of the policy that is scored
    what: str  # such as "the base at temperature 0.8"


@dataclass(frozen=True)
class ChunkLost(Fact):
    """A part of a scoring, whose actor lives. It is done again where the policy's weights can be had."""

    actor: str
    chunk: int
    version: int  # of the policy that is scored
    reason: str  # what was "lost with a node"


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
    tracker: str
    reason: str


@dataclass(frozen=True)
class TrackingBehind(Fact):
    capacity: int  # of lines; more are dropped


@dataclass(frozen=True)
class SinkFailed(Fact):
    """A sink of the recorder raised; the run goes on, and the sink still receives later facts."""

    sink: str
    reason: str
