"""Stand-ins: a Ray that runs actors in the test's own process under a clock that the test moves, and its session.

An actor is any class. What a method returns is the answer to its call, what it raises is the error: `DiesError` is
the death of its process, `Late(seconds, value)` an answer that takes its time (an error where `value` is one),
`Late(NEVER)` one that never comes. An actor answers one call after the other, and time passes only where somebody
waits.
"""

import inspect
from concurrent.futures import Executor, Future
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf
from typing import Any

from common.facts import Fact
from common.ray_calls_group import NameTakenError, NoAnswerError, ProcessLostError, RayCalls, ValueLostError
from deploy.cluster.ray_session import RaySession

NEVER = inf
MANY = 100_000  # waits, for one test


class DiesError(Exception):
    """Raised by a method of an actor: its process is gone."""


@dataclass
class Late:
    seconds: float
    value: Any = None


@dataclass(eq=False)
class Reference:
    value: Any = None
    error: Exception | None = None
    done_at: float = 0.0


@dataclass(eq=False)
class FakeActor:
    ray: "FakeRay"
    made_by: Any  # the class and its arguments
    options: dict[str, Any]
    self: Any = None  # the object, made at the first call
    died_of: str | None = None  # None: it lives
    busy_until: float = 0.0
    calls: list[Reference] = field(default_factory=list)
    asked: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)  # methods and arguments

    def __getattr__(self, method: str) -> "Method":
        return Method(self, method)


@dataclass
class Method:
    actor: FakeActor
    name: str
    num_returns: int = 1

    def options(self, num_returns: int) -> "Method":
        return Method(self.actor, self.name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        return self.actor.ray.call(self, arguments)


class FakeRay(RayCalls):
    def __init__(self, resources: dict[str, float] | None = None):
        self.now = 0.0
        self.actors: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.kills_work = True
        self.rooms: list[Any] = []  # asked for; None once it is given back
        self.instead: dict[tuple[int, str, int], Exception | Late] = {}
        """What a call answers: by number of the actor, method, and number of its calls before, each from 0."""
        self._resources = resources or {"CPU": 2.0}
        self._num_waits = 0

    def room_together(self, needs, count, labels):
        self.rooms.append((dict(needs), count, dict(labels)))
        return len(self.rooms)

    def leave_room(self, room):
        self.rooms[room - 1] = None

    def start(self, actor_class, *arguments, concurrency_groups=None, **options):
        name = options.get("name")
        if name and any(each.died_of is None and each.options.get("name") == name for each in self.actors):
            raise NameTakenError(f"an actor named {name} is alive")
        self.actors.append(FakeActor(self, (actor_class, arguments), options))
        return self.actors[-1]

    def call(self, method: Method, arguments: tuple[Any, ...]) -> Any:
        actor, needed = method.actor, [each for each in arguments if isinstance(each, Reference)]
        reference = Reference(done_at=max([self.now, actor.busy_until, *(each.done_at for each in needed)]))
        actor.asked.append((method.name, arguments))
        if actor.died_of is not None:
            reference.error, reference.done_at = ProcessLostError(actor.died_of), self.now
        elif failed := [each.error for each in needed if each.error is not None]:
            reference.error = failed[0]
        else:
            self._run(actor, method.name, [_value(argument) for argument in arguments], reference)
        references = [reference]
        if method.num_returns > 1:
            values = reference.value or [None] * method.num_returns
            references = [Reference(value, reference.error, reference.done_at) for value in values]
        actor.calls += references
        return references if method.num_returns > 1 else reference

    def _run(self, actor: FakeActor, name: str, arguments: list[Any], reference: Reference) -> None:
        try:
            reference.value = deepcopy(self._answer(actor, name, arguments))  # as the store has it
        except DiesError as death:
            self.bury(actor, str(death) or "the actor died")
            reference.error, reference.done_at = ProcessLostError(actor.died_of), self.now
        except Exception as error:
            reference.error = error
        if isinstance(late := reference.value, Late):
            reference.done_at += late.seconds
            is_error = isinstance(late.value, Exception)
            reference.value, reference.error = (None, late.value) if is_error else (late.value, None)
        actor.busy_until = reference.done_at

    def _answer(self, actor: FakeActor, name: str, arguments: list[Any]) -> Any:
        if actor.self is None:
            actor.self = self._made(actor)
        number = sum(asked == name for asked, _ in actor.asked) - 1
        instead = self.instead.get((self.actors.index(actor), name, number))
        if isinstance(instead, Exception):
            raise instead
        return getattr(actor.self, name)(*arguments) if instead is None else instead

    def _made(self, actor: FakeActor) -> Any:
        actor_class, own = actor.made_by
        takes_calls = "calls" in inspect.signature(actor_class).parameters
        try:
            return actor_class(*own, **({"calls": self} if takes_calls else {}))
        except Exception as error:  # as Ray does it: who cannot be made is dead
            raise DiesError(f"{type(error).__name__}: {error}") from error

    def bury(self, actor: FakeActor, reason: str) -> None:
        if actor.died_of is None:
            actor.died_of = reason
        for reference in actor.calls:
            if reference.done_at > self.now:
                reference.error, reference.done_at = ProcessLostError(reason), self.now

    def ready(self, references, timeout=0.0, count=1):
        self._num_waits += 1
        assert self._num_waits < MANY, "the test would wait forever"
        deadline = self.now + timeout
        while len(done := [each for each in references if each.done_at <= self.now]) < min(count, len(references)):
            if self.now >= deadline:
                break
            coming = [each.done_at for each in references if each.done_at > self.now]
            self.now = min(deadline, *coming)
        return done

    def get(self, reference, timeout=None):
        if isinstance(reference, list):
            return [self.get(each, timeout) for each in reference]
        if not self.ready([reference], timeout=NEVER if timeout is None else timeout):
            raise NoAnswerError(f"it has not answered for {timeout:g} s")
        assert reference.done_at < NEVER, "the test would wait forever"
        if reference.error is not None:
            raise reference.error
        return reference.value

    def lose(self, reference: Reference) -> None:
        """No node has the value any more."""
        reference.error = ValueLostError("lost with its node")

    def put(self, value):
        return Reference(value)

    def kill(self, actor):
        self.killed.append(actor)
        if self.kills_work:
            self.bury(actor, "killed")

    def free_resources(self):
        return self._resources

    def most_resources(self):
        return self._resources

    def node_address(self):
        return "127.0.0.1"

    def clock(self):
        return self.now


def _value(argument: Any) -> Any:
    """As Ray does it: a reference that is an argument itself arrives as its value."""
    return argument.value if isinstance(argument, Reference) else argument


class FakeSession(RaySession):
    """The cluster of a fake Ray: no actor outlives it."""

    def __init__(self, ray: FakeRay):
        self._ray = ray

    def require_cluster(self) -> None:
        """It answers."""

    def open(self, recipe: Any) -> str:
        return "a stand-in for Ray"

    def connection(self) -> dict[str, Any]:
        return {"address": "nowhere", "environment": {}}

    def close(self) -> None:
        for actor in self._ray.actors:
            self._ray.bury(actor, "the cluster is gone")


class AtOnce(Executor):
    """Instead of a thread: what is submitted is done before `submit` returns."""

    def submit(self, function, /, *arguments, **named):
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class Told:
    """A sink, and what is told facts directly: it keeps them."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        self.facts.append(fact)

    record = __call__

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    @property
    def names(self) -> list[str]:
        return [fact.event for fact in self.facts]
