"""What the pool knows of each reward actor, and of what it has asked of it."""

from dataclasses import dataclass, field
from typing import Any

from actors.pool_events import RolledOut, UnjudgedChunk
from common.errors import ClusterError
from common.paths import code_fingerprint


@dataclass(frozen=True)
class ActorDescription:
    """What an actor reports about itself when it is ready."""

    node: str
    pid: int
    device: str
    code: str  # fingerprint


@dataclass(frozen=True)
class Call:
    """Either a ticket, whose receipt comes with its groups, or a chunk."""

    made_at: float
    version: int  # of the policy
    ticket_id: int = -1
    receipt: Any = None  # reference
    groups: Any = None  # reference
    chunk: int | None = None
    unjudged: Any = None  # reference; of a chunk


@dataclass(frozen=True)
class JudgeCall:
    """A ticket or a chunk that a judge actor has."""

    made_at: float
    work: RolledOut | UnjudgedChunk
    receipt: Any = None  # reference; of a ticket


@dataclass
class Member:
    actor: Any
    description: Any  # reference; None once it has given it
    asked_at: float
    node: str = ""
    code: str = ""  # fingerprint of what it runs
    is_guest: bool = False  # a learner rank, which others start and replace
    is_leaving: bool = False  # finishes what it has, gets no more
    is_overdue: bool = False  # not ready for long, and reported
    calls: dict[Any, Any] = field(default_factory=dict)
    """A Call or JudgeCall, by the reference to what it returns: groups, or the result of a chunk. By that to the
    receipt where pictures are not to be fetched here."""

    @property
    def is_ready(self) -> bool:
        return self.description is None

    def welcome(self, name: str, node: str, code: str) -> None:
        """It is ready, on that node. ClusterError where it runs other code than this process."""
        if code != code_fingerprint():
            raise ClusterError(
                f"{name} on {node} runs code {code}, the driver {code_fingerprint()}: submit the job with "
                "--working-dir so that every node gets this checkout"
            )
        self.description, self.node, self.code = None, node, code

    @property
    def is_free_for_more(self) -> bool:
        return self.is_ready and not self.is_leaving

    @property
    def waiting_for(self) -> list[Any]:
        """References."""
        return [*self.calls] if self.is_ready else [self.description, *self.calls]

    def state(self) -> dict[str, Any]:
        """Where it is and what it does; node and code are empty where it is not ready."""
        state = {"node": self.node, "code": self.code, "calls": len(self.calls), "is_leaving": self.is_leaving}
        return state | ({"is_guest": True} if self.is_guest else {})

    def has_hung(self, now: float, limit: float) -> bool:
        """Whether a call is older than `limit` seconds."""
        return any(now - call.made_at > limit for call in self.calls.values())
