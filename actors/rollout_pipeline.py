"""From a ticket to scored groups: read, encode, noise, one forward, G samples, decode, score.

Plain torch on one device; no Ray. All randomness of a sample comes from (run seed, sample index).

Letters: B images of the ticket, G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.code_credit import code_credit
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import Sources
from actors.rollouts.rollout import Draws, RolloutSettings
from actors.rollouts.table import ROLLOUTS
from common.clock import StageClock
from common.code_credit import CodeCredit
from common.config.recipe import Recipe
from common.errors import BrokenImageError
from common.finite import non_finite_groups, take_rows
from common.machine import autocast
from common.protocols import ImageSource, ImageTokenizer, Policy
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.types import SkippedImage


@dataclass(frozen=True)
class ScoredGroups:
    """What became of the samples asked for."""

    groups: GroupBatch | None  # None if no image gave a group
    skipped: tuple[SkippedImage, ...]


class RolloutPipeline:
    def __init__(
        self,
        recipe: Recipe,
        source: ImageSource,
        tokenizer: ImageTokenizer,
        reward: DecodedReward,
        device: torch.device,
        order: SampleOrder | None = None,
        settings: RolloutSettings | None = None,
    ):
        """`order` says which image a sample index means; by default it and the settings are those of the run."""
        self._source = source
        self._order = order or SampleOrder(recipe.seed, len(source))
        self._settings = settings or RolloutSettings.of(recipe)
        self._rollout = ROLLOUTS[recipe.rollout.kind](self._settings, tokenizer)
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._reward = reward
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
    ) -> ScoredGroups:
        """The scored groups of `sample_indices`, in order.

        Without those whose image is broken, and those with a number that is not finite.
        """
        with clock("read"):
            being_read = self._ahead.pop(tuple(sample_indices), None) or self._start_reading(sample_indices)
            images = batch_of(being_read)
        if not isinstance(images, ImageBatch):
            return ScoredGroups(None, _broken(sample_indices, images))
        kept = [sample_indices[position] for position in images.positions]
        with clock("read"):
            pixels_BCHW, condition = images.tensors(self._device)
        draws = self._rollout.draw(policy, pixels_BCHW, condition, kept, clock)
        sources = Sources(pixels_BCHW, draws.condition, images.image_ids, images.texts)
        terms = self._reward.measure(draws.samples_BGT, sources, clock)
        credit = self._credit(policy, draws, terms.gradient_BTD, clock)
        K = None if credit is None else self._recipe.num_samples_kept
        groups = GroupBatch(
            sample_index_B=np.array(kept, dtype=np.int64),
            image_id_B=images.image_ids,
            policy_version=policy_version,
            codebook_size=self._tokenizer.codebook_size,
            context_tokens_BT=_int32(draws.context_BT),
            target_tokens_BT=_int32(draws.targets_BT),
            sampled_tokens_BGT=_int32(draws.samples_BGT[:, :K]),
            behaviour_logprobs_BGT=draws.logprobs_BGT[:, :K].cpu().numpy(),
            condition=_arrays(draws.condition),
            reward_terms=_arrays(terms.terms),
            reward_maps=_arrays(terms.maps),
            credit={} if credit is None else _arrays(credit.columns),
            gradient_weights={} if credit is None else self._recipe.reward.differentiable_weights,
            higher_is_better=terms.higher_is_better,
        )
        sound, quarantined = _quarantined(groups, terms.failures)
        return ScoredGroups(sound, _broken(sample_indices, images.broken) + quarantined)

    def _credit(
        self, policy: Policy, draws: Draws, gradient_BTD: Tensor | None, clock: StageClock
    ) -> CodeCredit | None:
        if gradient_BTD is None:
            return None
        settings = self._settings
        with clock("sample"), autocast(settings.compute, self._device):
            return code_credit(
                policy.logits,
                draws.hidden_BTD,
                draws.samples_BGT,
                gradient_BTD,
                self._tokenizer,
                settings.distribution,
            )


def _broken(sample_indices: Sequence[int], broken: Mapping[int, BrokenImageError]) -> tuple[SkippedImage, ...]:
    return tuple(
        SkippedImage(sample_indices[position], error.image_id, error.reason) for position, error in broken.items()
    )


def _quarantined(
    groups: GroupBatch, failures: Mapping[int, str]
) -> tuple[GroupBatch | None, tuple[SkippedImage, ...]]:
    """The groups that can be learned from (None: none can), and what is wrong with the others."""
    bad = non_finite_groups(groups) | dict(failures)
    if not bad:
        return groups, ()
    skipped = tuple(
        SkippedImage(int(groups.sample_index_B[row]), groups.image_id_B[row], reason, is_quarantined=True)
        for row, reason in sorted(bad.items())
    )
    sound = [row for row in range(len(groups)) if row not in bad]
    return (take_rows(groups, sound) if sound else None), skipped


def _arrays(columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: column.cpu().numpy() for name, column in columns.items()}


def _int32(tokens: Tensor) -> np.ndarray:
    return tokens.to(torch.int32).cpu().numpy()
