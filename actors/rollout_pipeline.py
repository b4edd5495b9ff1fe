"""From a ticket to scored groups: read, encode, noise, one forward, G samples, decode, score.

Plain torch on one device; no Ray. All randomness of a sample comes from (run seed, sample index).

Letters: B images of the ticket, G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.context_noise import noisy_context
from actors.group_sampling import sample_groups
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.pixel_reward import PixelReward
from common.clock import StageClock
from common.condition_drop import drop_conditions
from common.config.recipe import Recipe
from common.errors import BrokenImageError
from common.finite import non_finite_groups, take_rows
from common.machine import autocast
from common.protocols import ImageSource, ImageTokenizer, PerceptualMetric, Policy
from common.reward_terms import RewardTerms
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.seeding import generator
from common.types import SkippedImage


@dataclass(frozen=True)
class Rollout:
    """The outcome of the requested samples."""

    groups: GroupBatch | None  # None if no image gave a group
    skipped: tuple[SkippedImage, ...]


class RolloutPipeline:
    def __init__(
        self,
        recipe: Recipe,
        source: ImageSource,
        tokenizer: ImageTokenizer,
        perceptual: PerceptualMetric | None,
        device: torch.device,
        order: SampleOrder | None = None,
    ):
        """`order` maps a sample index to an image; the run's own order by default."""
        self._recipe = recipe
        self._source = source
        self._order = order or SampleOrder(recipe.seed, len(source))
        self._tokenizer = tokenizer
        self._reward = PixelReward(tokenizer, perceptual, recipe.reward, recipe.has_reward_maps)
        self._device = device
        self._readers = ThreadPoolExecutor(recipe.actors.num_read_threads, thread_name_prefix="read")
        self._ahead: dict[tuple[int, ...], Iterable] = {}  # by sample indices: images being read

    def read_ahead(self, sample_indices: Sequence[int]) -> None:
        """Start reading the images of a ticket that `roll_out` will be called with soon. Thread-safe."""
        self._ahead[tuple(sample_indices)] = self._start_reading(sample_indices)

    def _start_reading(self, sample_indices: Sequence[int]) -> Iterable:
        indices = [self._order.image_index(index) for index in sample_indices]
        return start_reading(self._source, indices, self._readers)

    @torch.no_grad()
    def roll_out(
        self, policy: Policy, policy_version: int, sample_indices: Sequence[int], clock: StageClock
    ) -> Rollout:
        """The scored groups of `sample_indices`, in order, without broken images and non-finite groups."""
        with clock("read"):
            being_read = self._ahead.pop(tuple(sample_indices), None) or self._start_reading(sample_indices)
            images = batch_of(being_read)
        if not isinstance(images, ImageBatch):
            return Rollout(None, _broken(sample_indices, images))
        recipe, group = self._recipe, self._recipe.group
        kept = [sample_indices[position] for position in images.positions]
        pixels_BCHW, condition = images.tensors(self._device)
        with clock("encode"):
            target_BT = self._tokenizer.encode(pixels_BCHW)
        with clock("policy"):
            noises = [recipe.context_noise(index) for index in kept]
            noise_draws = [generator(recipe.seed, "context noise", index) for index in kept]
            drops = [generator(recipe.seed, "condition drop", index) for index in kept]
            chances_B = torch.cat([torch.rand(1, generator=drop) for drop in drops])
            condition = drop_conditions(policy, condition, chances_B < recipe.actor_condition_drop)
            context_BT = noisy_context(target_BT, noises, self._tokenizer.codebook_size, noise_draws)
            with autocast(recipe.compute, self._device):
                hidden_BTD = policy(condition, context_BT, head=False)
        with clock("sample"), autocast(recipe.compute, self._device):
            draws = [generator(recipe.seed, "group samples", index) for index in kept]
            tokens_BGT, logprobs_BGT = sample_groups(
                policy.logits, hidden_BTD, group.size, group.temperature, draws, group.top_k, group.top_p
            )
        terms = self._reward.terms(tokens_BGT, pixels_BCHW, clock)
        groups = GroupBatch(
            sample_index_B=np.array(kept, dtype=np.int64),
            image_id_B=images.image_ids,
            policy_version=policy_version,
            codebook_size=self._tokenizer.codebook_size,
            context_tokens_BT=_int32(context_BT),
            target_tokens_BT=_int32(target_BT),
            sampled_tokens_BGT=_int32(tokens_BGT),
            behaviour_logprobs_BGT=logprobs_BGT.cpu().numpy(),
            condition={name: column.cpu().numpy() for name, column in condition.items()},
            **_reward_columns(terms),
        )
        sound, quarantined = _quarantined(groups)
        return Rollout(sound, _broken(sample_indices, images.broken) + quarantined)


def _broken(sample_indices: Sequence[int], broken: Mapping[int, BrokenImageError]) -> tuple[SkippedImage, ...]:
    return tuple(
        SkippedImage(sample_indices[position], error.image_id, error.reason) for position, error in broken.items()
    )


def _quarantined(groups: GroupBatch) -> tuple[GroupBatch | None, tuple[SkippedImage, ...]]:
    """The groups fit for learning (None if there are none), and the others as skipped images."""
    bad = non_finite_groups(groups)
    if not bad:
        return groups, ()
    skipped = tuple(
        SkippedImage(int(groups.sample_index_B[row]), groups.image_id_B[row], reason, is_quarantined=True)
        for row, reason in bad.items()
    )
    sound = [row for row in range(len(groups)) if row not in bad]
    return (take_rows(groups, sound) if sound else None), skipped


def _reward_columns(terms: RewardTerms) -> dict[str, Any]:
    return {f"reward_{name}": column.cpu().numpy() for name, column in terms.present().items()}


def _int32(tokens: Tensor) -> np.ndarray:
    return tokens.to(torch.int32).cpu().numpy()
