"""Tickets and chunks of an evaluation, done with a policy that somebody else loads and changes. No Ray."""

from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from actors.evaluation.chunks import EvaluationChunk, EvaluationModels
from actors.rewards.build import rewards_of
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.machine import gpu_peak_bytes, require_compiler, resident_bytes
from common.models.families import PolicyModule, TokenizerModule
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.schema import to_table
from common.types import GroupReceipt, WorkTicket


class TicketWork:
    def __init__(
        self,
        recipe: Recipe,
        policy: PolicyModule,
        device: torch.device,
        *,
        only_draws: bool = False,
        tokenizer: TokenizerModule | None = None,
    ):
        """Load what it takes beside the policy; no metric where it `only_draws` free-running pictures.

        A `tokenizer` is somebody else's, who trains it.
        """
        tokenizer = tokenizer or load_tokenizer(recipe, device)
        self.trained: PolicyModule | TokenizerModule = tokenizer if recipe.trains_decoder else policy
        perceptual = None if only_draws else load_perceptual_metric(recipe, device)
        self._models = EvaluationModels(recipe, tokenizer, perceptual, device)
        self._policy, self._device = policy, device
        if recipe.sampling.compile:
            require_compiler(device)
            policy.compile_decoding()

    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        """Read the images of a waiting ticket while the models work on the previous one. Thread-safe."""
        if "_pipelines" in self.__dict__:  # never built here, beside the thread that may be building them
            self._pipeline(sample_indices).read_ahead(sample_indices)

    @cached_property
    def _pipelines(self) -> dict[Kind, RolloutPipeline]:  # at the first ticket: drawing needs no training images
        recipe, models = self._models.recipe, self._models
        source = build_source(recipe, "train")
        rewards = rewards_of(recipe, models.tokenizer, models.terms)
        return {
            kind: RolloutPipeline(recipe.of_kind(kind), source, models.tokenizer, reward, self._device)
            for kind, reward in rewards.items()
        }

    def _pipeline(self, sample_indices: tuple[int, ...]) -> RolloutPipeline:
        return self._pipelines[self._models.recipe.kind_of(sample_indices[0])]

    def roll_out(
        self, ticket: WorkTicket, version: int, clock: StageClock
    ) -> tuple[GroupReceipt, pa.Table | None]:
        """Receipt and groups of a ticket; the policy's weights are now those of `version`."""
        rollout = self._pipeline(ticket.sample_indices).roll_out(
            self._policy, version, ticket.sample_indices, clock
        )
        table = None if rollout.groups is None else to_table(rollout.groups)
        receipt = GroupReceipt(
            ticket_id=ticket.ticket_id,
            policy_version=version,
            num_groups=0 if rollout.groups is None else len(rollout.groups),
            num_tokens=0 if rollout.groups is None else rollout.groups.num_tokens_sampled,
            num_bytes=0 if table is None else table.nbytes,
            skipped=rollout.skipped,
            stage_seconds=dict(clock.seconds),
            resident_bytes=resident_bytes(),
            gpu_peak_bytes=gpu_peak_bytes(self._device),
        )
        return receipt, table

    def evaluate(self, chunk: EvaluationChunk) -> Any:
        return chunk.run(self._policy, self._models)
