"""A learner rank that also rolls out, with the very policy that it trains: no weights travel to it."""

from typing import Any, ClassVar, cast

import ray

from actors.evaluation.chunks import EvaluationChunk
from actors.rollout_actor import READING, WeightsLostError
from actors.ticket_work import Evaluated, RolledOut, TicketWork
from common.clock import StageClock
from common.config.recipe import Recipe
from common.models.families import PolicyModule, TokenizerModule
from common.models.loading import load_policy
from common.ray_calls_group import RayCalls
from common.types import WorkTicket
from learner.learner_actor import PUBLISHING, LearnerActor


class ColocatedActor(LearnerActor):
    """Its calls are done one after the other: a ticket is rolled out between two steps."""

    CONCURRENCY_GROUPS: ClassVar = {PUBLISHING: 1, READING: 1}

    def __init__(self, recipe: Recipe, calls: RayCalls | None = None):
        super().__init__(recipe, calls)
        device, trained = self._device, self._trainer.model
        if recipe.trains_decoder:
            tokenizer = cast(TokenizerModule, trained)
            self._work = TicketWork(recipe, load_policy(recipe, device), device, tokenizer=tokenizer)
        else:
            self._work = TicketWork(recipe, cast(PolicyModule, trained), device)

    @ray.method(concurrency_group=READING)
    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Read the images of a waiting ticket while the models work on the previous one."""
        self._work.read_ahead(sample_indices)

    def roll_out(self, ticket: WorkTicket, version: int, _snapshot: list[Any]) -> RolledOut:
        """Receipt and groups of a ticket, under policy `version`.

        Raises WeightsLostError where the policy has become another meanwhile.
        """
        self._require(version)
        return self._work.roll_out(ticket, version, StageClock(self._device))

    def evaluate(self, chunk: EvaluationChunk, version: int, _snapshot: list[Any]) -> Evaluated:
        """The chunk's result under policy `version`, or what judges need for it; raises like `roll_out`."""
        self._require(version)
        return self._work.evaluate(chunk)

    def _require(self, version: int) -> None:
        if version != self.step():
            raise WeightsLostError(f"policy version {version} is gone: this rank has done {self.step()} steps")
