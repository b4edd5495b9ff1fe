"""A training loop on a stand-in for Ray, with actors and ranks that have no model: a run takes milliseconds.

Actors roll out and ranks learn at once, unless a test's subclass has them be late, die or answer something else.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.judge_actor import PicturesLostError
from actors.judge_pool import JudgePool
from actors.pool_events import PublishedPolicy
from actors.rollout_actor import ActorDescription, ActorJob, WeightsLostError
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.recipe import Recipe
from common.facts import SinkFailed, StepLearned
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from common.types import GroupReceipt, SkippedImage, TrainingState, WorkTicket
from common.weights.snapshot import snapshot_of
from deploy.runs.recorder import Recorder
from deploy.runs.run_folder import RunFolder
from deploy.runs.status import LoopState, Status
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.scorer import Evaluation
from deploy.service.checkpoint_writer import CheckpointWriter
from deploy.service.control_actor import ControlLink, control_name
from deploy.service.stepper import Counts, Stepper
from deploy.service.training_loop import TrainingLoop
from learner.learner_group import LearnerGroup
from tests.fakes import AtOnce, FakeRay, Told
from tests.learner.scripted_rank import ScriptedRank

PATIENCE_SECONDS = 10.0  # of the test, for a loop that does not end


class Actor:
    """Its groups are the words "ticket N by NAME"."""

    def __init__(self, recipe: Recipe, name: str, job: ActorJob, calls: RayCalls):
        self.name = name
        self._ray = calls
        self._version = -1
        self._judges_are_apart = recipe.reward.actors.count > 0

    def describe(self) -> ActorDescription:
        return ActorDescription("127.0.0.1", 1, "cpu", code_fingerprint())

    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Nothing."""

    def fetch_ahead(self, version: int, snapshot: list[Any]) -> None:
        """Nothing."""

    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> Any:
        self._take(version, snapshot)
        return self.rolled(ticket)

    def evaluate(self, chunk: Any, version: int, snapshot: list[Any]) -> Any:
        """The version that the weights say they are; of a run with judges, for these."""
        self._take(version, snapshot)
        return (None, self._version) if self._judges_are_apart else (self._version, None)

    def rolled(self, ticket: WorkTicket, skipped: tuple[SkippedImage, ...] = ()) -> Any:
        """Receipt and groups of the ticket's images but those skipped."""
        num_groups = len(ticket.sample_indices) - len(skipped)
        groups = f"ticket {ticket.ticket_id} by {self.name}" if num_groups else None
        stages = {"decode": 0.25}
        receipt = GroupReceipt(ticket.ticket_id, self._version, num_groups, 10 * num_groups, skipped, stages)
        return replace(receipt, awaits_judges=self._judges_are_apart and num_groups > 0), groups

    def _take(self, version: int, snapshot: list[Any]) -> None:
        if version != self._version:
            try:
                self._version = self._ray.get(snapshot[0]).version
            except ValueLostError as error:
                raise WeightsLostError from error


class Judge:
    """Completes groups: adds " by JUDGE" to the words."""

    def __init__(self, recipe: Recipe, name: str, calls: RayCalls):
        self.name, self._ray = name, calls

    def describe(self) -> ActorDescription:
        return ActorDescription("127.0.0.1", 2, "cpu", code_fingerprint())

    def judge(self, receipt: GroupReceipt, unjudged: list[Any]) -> Any:
        try:
            groups = self._ray.get(unjudged[0])
        except ValueLostError as error:
            raise PicturesLostError from error
        return replace(receipt, awaits_judges=False, judge_seconds=0.5), f"{groups} by {self.name}"

    def judge_chunk(self, unjudged: list[Any]) -> Any:
        """What the actor gave."""
        try:
            return self._ray.get(unjudged[0])
        except ValueLostError as error:
            raise PicturesLostError from error


class Rank(ScriptedRank):
    """Its one weight is the number of steps done."""

    def __init__(self, recipe: Recipe, calls: FakeRay):
        super().__init__(recipe, calls)
        self._ray = calls
        self.learned: list[list[str]] = []  # groups of each step

    def train(self, pieces: Any, num_groups: int) -> Any:
        self.learned.append(self._ray.get([piece.groups for piece in pieces]))
        return super().train(pieces, num_groups)

    def snapshot(self, version: int) -> Any:
        weights = snapshot_of({"w": torch.full((1,), float(self.steps))}, version)
        return weights.num_bytes, weights

    def weights_sha256(self) -> str:
        return f"digest of step {self.steps}"

    def training_state(self) -> Any:
        arrays = (np.full(1, self.steps, np.float32) for _ in range(2))
        return self.steps, TrainingState({"w": next(arrays)}, frozenset(), {"w.step": next(arrays)})


class FourChunks:
    """A scorer that has four chunks done; the scores are what they gave."""

    def evaluate(self, run_chunks: Callable[[list[str]], list[int]], **_: Any) -> list[Evaluation]:
        versions = run_chunks([f"chunk {number}" for number in range(4)])
        scores = {f"chunk_{number}": float(version) for number, version in enumerate(versions)}
        return [Evaluation(scores, np.zeros((1, 8, 8, 3), np.uint8))]


@dataclass
class Served:
    """A loop with all that it is made of."""

    loop: TrainingLoop
    ray: FakeRay
    told: Told
    folder: RunFolder
    states: list[LoopState] = field(default_factory=list)  # of every turn
    at_turn: Callable[["Served"], None] = lambda served: None  # what the test does between two turns

    def run(self) -> None:
        self.loop.run()
        assert self.told.of(SinkFailed) == []

    def ask(self, request: dict[str, Any]) -> None:
        """As `scale` and `stop` do."""
        self._control.ask.remote(request)

    @property
    def status(self) -> dict[str, Any]:
        return self.ray.get(self._control.status.remote())

    @property
    def _control(self) -> Any:
        name = control_name(self.loop.recipe.run.name)
        (control,) = [actor for actor in self.ray.actors if actor.options.get("name") == name]
        return control

    @property
    def steps(self) -> list[StepLearned]:
        return self.told.of(StepLearned)

    @property
    def learned(self) -> list[str]:
        """The groups that the only rank was given, step by step."""
        (rank,) = [actor.self for actor in self.ray.actors if isinstance(actor.self, Rank)]
        return [groups for step in rank.learned for groups in step]

    @property
    def tickets(self) -> list[int]:
        """Every ticket that was learned from, as often as it was."""
        assert sorted(int(groups.split()[1]) for groups in self.learned) == sorted(
            ticket for step in self.steps for ticket in step.tickets
        )
        return sorted(ticket for step in self.steps for ticket in step.tickets)

    @property
    def num_rolled(self) -> int:
        """Tickets that actors were given."""
        return sum(name == "roll_out" for actor in self.ray.actors for name, _ in actor.asked)


@contextmanager
def serving(
    recipe: Recipe,
    folder: Path,
    *,
    ray: FakeRay | None = None,
    actor: type = Actor,
    rank: type = Rank,
    judge: type = Judge,
    scorer: Any = None,
    at_turn: Callable[[Served], None] = lambda served: None,
) -> Iterator[Served]:
    """A loop at its start, with every actor and rank ready; scores during training where there is a scorer."""
    ray, told, run_folder = ray or FakeRay(), Told(), RunFolder(folder)
    status = Status(recipe, run_folder.checkpoints, ray.clock)
    tell = Recorder((run_folder, status, told)).tell
    learner = LearnerGroup(recipe, tell, ray, rank)
    hosts = learner if recipe.placement == "colocated" else None
    pool = RolloutPool(recipe, tell, lambda: None, ray, actor, hosts=hosts)
    pool.resize(recipe.actors.count)
    judges = JudgePool(recipe, tell, lambda: None, ray, judge) if recipe.reward.actors.count else None
    if judges is not None:
        judges.resize(recipe.reward.actors.count)
    learner.wait_ready(10, lambda: None)
    pool.wait_ready(10)
    if judges is not None:
        judges.wait_ready(10)
    published = PublishedPolicy(0, learner.snapshot(0) if recipe.actors.count else None)
    evaluation = BackgroundEvaluation(scorer, 1.0, tell, run_folder.samples) if scorer else None
    begun = time.monotonic()

    def watch(state: LoopState) -> None:
        assert time.monotonic() - begun < PATIENCE_SECONDS, "the loop does not end"
        served.states.append(state)
        served.at_turn(served)

    loop = TrainingLoop(
        recipe=recipe,
        tell=tell,
        watch=watch,
        status=status.of,
        ray=ray,
        pool=pool,
        learner=learner,
        ledger=Ledger(
            recipe.learner.num_steps,
            recipe.tickets_per_step,
            recipe.actors.images_per_ticket,
            recipe.buffer.max_staleness,
        ),
        stepper=Stepper(tell, ray, learner, published, Counts(), weights_travel=lambda: pool.num_wanted > 0),
        control=ControlLink(recipe.run.name, ray),
        checkpoints=CheckpointWriter(recipe, run_folder, tell, ray, learner, AtOnce()),
        evaluation=evaluation,
        judges=judges,
    )
    served = Served(loop, ray, told, run_folder, at_turn=at_turn)
    try:
        yield served
    finally:
        if evaluation is not None:
            evaluation.close()
