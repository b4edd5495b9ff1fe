"""The reward actor: the Ray shell around a rollout pipeline and a policy snapshot."""

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray

from actors.evaluation.chunks import EvaluationChunk, EvaluationModels
from actors.rewards.build import reward_of
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.recipe import Recipe
from common.log import log_context, set_up_logging
from common.machine import gpu_peak_bytes, prepare_device, resident_bytes
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from common.schema import to_table
from common.types import GroupReceipt, WeightSnapshot, WorkTicket
from common.weights.snapshot import load_snapshot

log = logging.getLogger("vapi.actors")

READING = "reading"  # an actor's concurrency group (with its own thread) for reading ahead


class WeightsLostError(Exception):
    """No node has the weights of a policy version any more."""


@dataclass(frozen=True)
class ActorDescription:
    """What an actor reports about itself when it is ready."""

    node: str
    pid: int
    device: str
    code: str  # fingerprint


@dataclass(frozen=True)
class ActorJob:
    """What actors are for, beside what their recipe says."""

    checkpoint: str | None = None  # of the policy that they begin with; None: the recipe's
    only_draws: bool = False  # free-running pictures: no metric is loaded, and nothing is compiled


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
        tokenizer = load_tokenizer(recipe, self._device)
        perceptual = None if job.only_draws else load_perceptual_metric(recipe, self._device)
        self._models = EvaluationModels(recipe, tokenizer, perceptual, self._device)
        self._policy = load_policy(recipe, self._device, job.checkpoint, may_compile=not job.only_draws)
        self._version = -1  # the job's own weights, until a snapshot is pulled
        log.info("ready on %s", self._device)

    @ray.method(concurrency_group=READING)
    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Read the images of a waiting ticket while the models work on the previous one."""
        if "_pipeline" in self.__dict__:  # never built here, beside the thread that may be building it
            self._pipeline.read_ahead(sample_indices)

    @cached_property
    def _pipeline(self) -> RolloutPipeline:  # at the first ticket: drawing pictures needs no training images
        recipe, models = self._models.recipe, self._models
        source = build_source(recipe, "train")
        credit, compiled_for = recipe.advantage.credit, recipe.compiled_decode_size
        reward = reward_of(recipe.reward, models.tokenizer, models.terms, credit, compiled_for)
        return RolloutPipeline(recipe, source, models.tokenizer, reward, self._device)

    def describe(self) -> ActorDescription:
        return ActorDescription(self._ray.node_address(), os.getpid(), str(self._device), code_fingerprint())

    def roll_out(
        self, ticket: WorkTicket, version: int, snapshot: list[Any]
    ) -> tuple[GroupReceipt, pa.Table | None]:
        """Receipt and groups of a ticket, under policy `version`.

        `snapshot` is a list with the reference to that version's weights; the list keeps Ray from fetching them
        for an actor that already has them. The groups are returned, not put, so that the driver owns them and they
        outlive the actor. Raises WeightsLostError if no node has that version's weights any more.
        """
        clock = StageClock(self._device)
        if version != self._version:
            with clock("transfer"):
                self._take(version, snapshot)
        rollout = self._pipeline.roll_out(self._policy, self._version, ticket.sample_indices, clock)
        table = None if rollout.groups is None else to_table(rollout.groups)
        receipt = GroupReceipt(
            ticket_id=ticket.ticket_id,
            policy_version=self._version,
            num_groups=0 if rollout.groups is None else len(rollout.groups),
            num_tokens=0 if rollout.groups is None else rollout.groups.num_tokens_sampled,
            num_bytes=0 if table is None else table.nbytes,
            skipped=rollout.skipped,
            stage_seconds=dict(clock.seconds),
            resident_bytes=resident_bytes(),
            gpu_peak_bytes=gpu_peak_bytes(self._device),
        )
        return receipt, table

    def evaluate(self, chunk: EvaluationChunk, version: int, snapshot: list[Any]) -> Any:
        """The chunk's result under policy `version`."""
        self._take(version, snapshot)
        return chunk.run(self._policy, self._models)

    def _take(self, version: int, snapshot: list[Any]) -> None:
        """Load the weights of `version`, which may be older: an evaluation can look back."""
        if version == self._version:
            return
        try:
            weights: WeightSnapshot = self._ray.get(snapshot[0])
        except ValueLostError as error:
            raise WeightsLostError(f"policy version {version} was lost with a node") from error
        load_snapshot(self._policy, weights)
        self._version = weights.version
        log_context(step=weights.version)
