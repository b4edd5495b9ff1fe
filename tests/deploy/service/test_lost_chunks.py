"""The driver's loop where a node goes down with the weights or a result of an evaluation that is at work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.evaluation.chunk_queue import ChunkQueue
from actors.pool_events import PublishedPolicy
from actors.rollout_actor import ActorDescription, ActorJob, WeightsLostError
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import ChunkLost, Published, StepLearned, TicketDropped
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from common.types import GroupReceipt, WorkTicket
from deploy.runs.run_folder import RunFolder
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink
from deploy.service.stepper import Counts, Stepper
from deploy.service.training_loop import TrainingLoop
from learner.learner_group import LearnerGroup
from tests.deploy.service import scripted
from tests.fakes import AtOnce, FakeRay, Late, Told

STEPS = 4


class Actor:
    """Rolls out and evaluates without a model: what it gives is the version of the weights that it pulled."""

    def __init__(self, recipe: Recipe, name: str, job: ActorJob, calls: RayCalls):
        self._ray = calls

    def describe(self) -> ActorDescription:
        return ActorDescription("127.0.0.1", 1, "cpu", code_fingerprint())

    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Nothing."""

    def fetch_ahead(self, version: int, snapshot: list[Any]) -> None:
        """Nothing."""

    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> Any:
        version = self._pull(snapshot)
        num_groups = len(ticket.sample_indices)
        return GroupReceipt(ticket.ticket_id, version, num_groups, 10 * num_groups, (), {}), "groups"

    def evaluate(self, chunk: str, version: int, snapshot: list[Any]) -> tuple[int, None]:
        return self._pull(snapshot), None

    def _pull(self, snapshot: list[Any]) -> int:
        try:
            return self._ray.get(snapshot[0]).version
        except ValueLostError as error:
            raise WeightsLostError from error


class Rank(scripted.Rank):
    """Its steps take a second."""

    def train(self, pieces: Any, num_groups: int) -> Any:
        return Late(1.0, super().train(pieces, num_groups))


class Scoring:
    """An evaluation of three chunks as the loop knows it, of step 2 and without a thread."""

    def __init__(self) -> None:
        self.results: dict[int, int] = {}
        self.is_given_up = False
        self._queue: ChunkQueue | None = None
        self._published: PublishedPolicy | None = None

    @property
    def is_running(self) -> bool:
        return self._queue is not None and not self._queue.is_done

    def start(self, published: PublishedPolicy) -> None:
        if published.version == 2:
            self._queue, self._published = ChunkQueue(["a", "b", "c"]), published  # type: ignore[list-item]

    def take(self, actor: str) -> Any:
        taken = self._queue.take(actor) if self._queue else None
        return None if taken is None else (*taken, self._published)

    def deliver(self, index: int, result: int) -> None:
        assert self._queue is not None
        self._queue.finish(index)
        self.results[index] = result

    def give_back(self, actor: str) -> None:
        if self._queue:
            self._queue.give_back(actor)

    def redo(self, index: int) -> None:
        assert self._queue is not None
        self._queue.redo(index)

    def renew(self, published: PublishedPolicy) -> None:
        if self._published is not None and self._published.version == published.version:
            self._published = published

    def give_up(self) -> None:
        assert self._queue is not None
        self.is_given_up = True
        self._queue.give_up()

    def record(self) -> None:
        """Nothing."""

    def wait(self, seconds: float) -> None:
        raise AssertionError("there is no thread")


class LosesResult(FakeRay):
    """A node goes down with the first result of chunk b."""

    has_lost = False

    def call(self, method: Any, arguments: Any) -> Any:
        references = super().call(method, arguments)
        if method.name == "evaluate" and arguments[0] == "b" and not self.has_lost:
            self.has_lost = True
            self.lose(references[0])
        return references


class LosesWeights(FakeRay):
    """A node goes down with the weights of version 2 when a chunk is first asked for."""

    has_lost = False

    def call(self, method: Any, arguments: Any) -> Any:
        if method.name == "evaluate" and not self.has_lost:
            self.has_lost = True
            self.lose(arguments[2][0])
        return super().call(method, arguments)


@pytest.fixture
def run(tiny_recipe: Recipe, tmp_path: Path) -> Callable[..., tuple[Scoring, Told]]:
    """Runs a loop of one actor and one rank to its end: run(ray, changes)."""

    def until_done(ray: FakeRay, changes: dict[str, Any] | None = None) -> tuple[Scoring, Told]:
        own = {"learner.num_steps": STEPS, "evaluation.every": 1, "actors.tickets_in_flight": 1}
        recipe, told, scoring = with_changes(tiny_recipe, own | (changes or {})), Told(), Scoring()
        learner, pool = LearnerGroup(recipe, told, ray, Rank), RolloutPool(recipe, told, lambda: None, ray, Actor)
        pool.resize(1)
        learner.wait_ready(10, lambda: None)
        pool.wait_ready(10)
        tickets = recipe.tickets_per_step, recipe.actors.images_per_ticket
        TrainingLoop(
            recipe=recipe,
            tell=told,
            watch=lambda state: None,
            status=lambda state: {},
            ray=ray,
            pool=pool,
            learner=learner,
            ledger=Ledger(STEPS, *tickets, recipe.buffer.max_staleness),
            stepper=Stepper(told, ray, learner, PublishedPolicy(0, learner.snapshot(0)), Counts()),
            control=ControlLink(recipe.run.name, ray),
            checkpoints=CheckpointWriter(recipe, RunFolder(tmp_path / "run"), told, ray, learner, AtOnce()),
            evaluation=scoring,  # type: ignore[arg-type]
        ).run()
        assert [step.report.step for step in told.of(StepLearned)] == [1, 2, 3, 4]
        learned = [ticket for step in told.of(StepLearned) for ticket in step.tickets]
        assert learned == list(range(STEPS * recipe.tickets_per_step))
        return scoring, told

    return until_done


def versions(told: Told) -> list[int]:
    return [fact.version for fact in told.of(Published)]


def test_without_a_loss_every_chunk_is_done_with_the_weights_of_its_step(run) -> None:
    scoring, told = run(FakeRay())
    assert scoring.results == {0: 2, 1: 2, 2: 2}
    assert versions(told) == [1, 2, 3, 4]
    assert told.of(ChunkLost) == []


def test_a_chunk_whose_result_is_lost_is_done_again(run) -> None:
    scoring, told = run(LosesResult())
    assert scoring.results == {0: 2, 1: 2, 2: 2}
    assert told.of(ChunkLost) == [ChunkLost("actor-0", 1, 2, "result lost with a node")]
    assert versions(told) == [1, 2, 3, 4]


def test_weights_that_the_learner_still_has_are_published_again_and_every_chunk_is_done(run) -> None:
    scoring, told = run(LosesWeights())
    assert scoring.results == {0: 2, 1: 2, 2: 2}
    assert told.of(ChunkLost) == [ChunkLost("actor-0", 0, 2, "weights lost with a node")]
    assert told.of(TicketDropped) == []
    assert versions(told) == [1, 2, 2, 3, 4]
    assert not scoring.is_given_up


def test_an_evaluation_whose_weights_the_learner_no_longer_has_is_given_up_and_the_run_goes_on(run) -> None:
    """The learner is in its third step by the time that the weights of the second are missed."""
    scoring, told = run(LosesWeights(), {"buffer.max_staleness": 1})
    assert scoring.is_given_up
    assert scoring.results == {}
    assert [(fact.version, fact.reason) for fact in told.of(ChunkLost)] == [(2, "weights lost with a node")] * 2
    assert versions(told) == [1, 2, 3, 4]
