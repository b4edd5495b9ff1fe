"""Tickets and chunks of an evaluation, done with a policy that somebody else loads and changes. No Ray."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from actors.evaluation.chunks import EvaluationChunk, Unjudged
from actors.evaluation.models import EvaluationModels
from actors.rewards.build import rewards_of
from actors.rollout_pipeline import RolloutPipeline
from actors.scored_groups import UnjudgedGroups
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.machine import gpu_peak_bytes, require_compiler, resident_bytes
from common.models.families import PolicyModule, TokenizerModule
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.types import GroupReceipt, WorkTicket

RolledOut = tuple[GroupReceipt, pa.Table | UnjudgedGroups | None]
"""A ticket's receipt and groups; None: no image gave one. Where its receipt awaits judges, what these need."""
Evaluated = tuple[Any, Unjudged | None]
"""A chunk's result. Instead of one, what judges elsewhere need to complete it."""


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
        self._judges_apart = recipe.reward.actors.count > 0
        self._models = EvaluationModels(recipe, tokenizer, perceptual, device, self._judges_apart)
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
        source, apart = build_source(recipe, "train"), self._judges_apart
        terms = models.comparing_terms | ({} if apart else models.judging.terms)
        rewards = rewards_of(recipe, models.tokenizer, terms, judges_apart=apart)
        return {
            kind: RolloutPipeline(recipe.of_kind(kind), source, models.tokenizer, reward, self._device)
            for kind, reward in rewards.items()
        }

    def _pipeline(self, sample_indices: tuple[int, ...]) -> RolloutPipeline:
        return self._pipelines[self._models.recipe.kind_of(sample_indices[0])]

    def roll_out(self, ticket: WorkTicket, version: int, clock: StageClock) -> RolledOut:
        """Receipt and groups of a ticket; the policy's weights are now those of `version`."""
        rolled = self._pipeline(ticket.sample_indices).roll_out(
            self._policy, version, ticket.sample_indices, clock
        )
        receipt = GroupReceipt(
            ticket_id=ticket.ticket_id,
            policy_version=version,
            num_groups=0,
            num_bytes=0,
            skipped=(),
            stage_seconds=dict(clock.seconds),
            resident_bytes=resident_bytes(),
            gpu_peak_bytes=gpu_peak_bytes(self._device),
        )
        if rolled.unjudged is not None:
            return replace(receipt, awaits_judges=True), rolled.unjudged
        return rolled.on(receipt)

    def evaluate(self, chunk: EvaluationChunk) -> Evaluated:
        outcome = chunk.run(self._policy, self._models)
        return (None, outcome) if isinstance(outcome, Unjudged) else (outcome, None)
