"""The reward actor: the Ray shell around a rollout pipeline and a policy snapshot."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from actors.evaluation.chunks import EvaluationChunk
from actors.incoming_weights import IncomingWeights
from actors.pool_members import ActorDescription
from actors.ticket_work import Evaluated, RolledOut, TicketWork
from common.clock import StageClock
from common.config.recipe import Recipe
from common.log import log_context, set_up_logging
from common.machine import prepare_device
from common.models.loading import load_policy
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from common.types import WeightSnapshot, WorkTicket
from common.weights.snapshot import linear_parameters, make_bfloat16

log = logging.getLogger("vapi.actors")

READING, FETCHING = "reading", "fetching"  # an actor's concurrency groups, a thread each: images, weights


class WeightsLostError(Exception):
    """No node has the weights of a policy version any more."""


@dataclass(frozen=True)
class ActorJob:
    """What actors are for, beside what their recipe says."""

    checkpoint: str | None = None  # of the policy that they begin with; None: the recipe's
    only_draws: bool = False  # free-running pictures: no metric is loaded, and no training forward compiled


TRAINING = ActorJob()


class RolloutActor:
    """One incarnation of a reward actor.

    Ray never restarts it: the pool replaces it under a new name, so that late deliveries of an old incarnation can
    be recognized and refused.
    """

    def __init__(self, recipe: Recipe, name: str, job: ActorJob = TRAINING, calls: RayCalls | None = None):
        set_up_logging(recipe.log.format, role=name)
        self._ray = calls or RayCalls()
        self._device = prepare_device(recipe.compute)
        self._policy = load_policy(recipe, self._device, job.checkpoint, may_compile=not job.only_draws)
        self._work = TicketWork(recipe, self._policy, self._device, only_draws=job.only_draws)
        if recipe.has_narrow_weights:
            make_bfloat16(self._policy, linear_parameters(self._policy))
        self._incoming = IncomingWeights(self._get_weights, self._device)
        self._version = 0  # of the weights that everybody begins with
        log.info("ready on %s", self._device)

    @ray.method(concurrency_group=READING)
    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Read the images of a waiting ticket while the models work on the previous one."""
        self._work.read_ahead(sample_indices)

    @ray.method(concurrency_group=FETCHING)
    def fetch_ahead(self, version: int, snapshot: list[Any]) -> None:
        """Fetch the weights of `version` while the models work under another."""
        with suppress(WeightsLostError):  # whose ticket needs them will say so
            self._incoming.fetch(version, snapshot)

    def describe(self) -> ActorDescription:
        return ActorDescription(self._ray.node_address(), os.getpid(), str(self._device), code_fingerprint())

    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> RolledOut:
        """Receipt and groups of a ticket, under policy `version`.

        `snapshot` is a list with the reference to that version's weights; the list keeps Ray from fetching them
        for an actor that already has them. The groups are returned, not put, so that the driver owns them and they
        outlive the actor. Raises WeightsLostError if no node has that version's weights any more.
        """
        clock = StageClock(self._device)
        if version != self._version:
            with clock("transfer"):
                self._take(version, snapshot)
        return self._work.roll_out(ticket, version, clock)

    def evaluate(self, chunk: EvaluationChunk, version: int, snapshot: list[Any]) -> Evaluated:
        """The chunk's result under policy `version`, or what judges need for it."""
        self._take(version, snapshot)
        return self._work.evaluate(chunk)

    def _get_weights(self, version: int, snapshot: list[Any]) -> WeightSnapshot:
        try:
            return self._ray.get(snapshot[0])
        except ValueLostError as error:
            raise WeightsLostError(f"policy version {version} was lost with a node") from error

    def _take(self, version: int, snapshot: list[Any]) -> None:
        """Load the weights of `version`, which may be older: an evaluation can look back."""
        if version != self._version:
            self._incoming.load_into(self._work.trained, version, snapshot)
            self._version = version
            log_context(step=version)
