"""A learner rank without a model, for a stand-in for Ray: its state is its number of steps and who made it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from common.config.recipe import Recipe
from learner.learner_actor import RankDescription, RankReport
from learner.shares import Piece
from learner.step_sums import StepSums
from tests.fakes import FakeRay


class ScriptedRank:
    """The n-th that is started has the number n, from 0 on, and 100 + n for its process."""

    CONCURRENCY_GROUPS: ClassVar = {"publishing": 1}
    grad_norm = 0.5

    def __init__(self, recipe: Recipe, calls: FakeRay):
        self.number = len(calls.actors) - 1
        self.steps = 0
        self.state = f"state of {self.number}"
        self.place: tuple[Any, ...] = ()  # rank, number of ranks, host and port of the last group it was in
        self.pieces: Sequence[Piece] = ()  # of the last step

    def describe(self) -> RankDescription:
        return RankDescription("node-a", 100 + self.number)

    def open_store(self, num_ranks: int) -> tuple[str, int]:
        return f"host-{self.number}", 5000

    def join(self, *place: Any) -> None:
        self.place = place

    def step(self) -> int:
        return self.steps

    def train(self, pieces: Sequence[Piece], num_groups: int) -> RankReport:
        self.steps += 1
        self.pieces = pieces
        count = sum(piece.count for piece in pieces)
        sums = StepSums(num_groups=count, sums={"loss": float(count * (1 + self.number))})
        return RankReport(
            sums, self.grad_norm, {"fetch": 0.25 * (1 + self.number)}, 1000 + self.number, self.number
        )

    def copy_weights(self, version: int) -> None:
        """Nothing."""

    def snapshot(self, version: int) -> tuple[int, str]:
        return 8, f"version {version} of {self.number}"

    def training_state(self) -> tuple[int, str]:
        return self.steps, self.state

    def weights_sha256(self) -> str:
        return f"digest of {self.state}"

    def optimizer_arrays(self) -> str:
        return self.state

    def resume(self, step: int, state: str, weights: Any = None) -> None:
        self.steps, self.state = step, state

    def leave(self) -> None:
        self.place = ()
