"""From a ticket to scored groups: read, draw G samples of each image or condition, decode, score.

Plain torch on one device; no Ray. All randomness of a sample comes from (run seed, sample index).

Letters: B images of the ticket, G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from actors.code_credit import code_credit
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import Sources
from actors.rollouts.rollout import Draws, RolloutSettings
from actors.rollouts.table import ROLLOUTS
from actors.scored_groups import ScoredGroups, UnjudgedGroups, arrays, missed_arrays, without_unsound
from common.clock import StageClock
from common.code_credit import CodeCredit
from common.config.recipe import Recipe
from common.errors import BrokenImageError
from common.machine import autocast
from common.protocols import ImageSource, ImageTokenizer, Policy
from common.reward_terms import RewardTerms
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.types import SkippedImage


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

        Without those whose image is broken, and those with a number that is not finite. Where judges are
        elsewhere, what these need to complete them.
        """
        with clock("read"):
            being_read = self._ahead.pop(tuple(sample_indices), None) or self._start_reading(sample_indices)
            images = batch_of(being_read)
        if not isinstance(images, ImageBatch):
            return ScoredGroups(None, _broken(sample_indices, images))
        kept = [sample_indices[position] for position in images.positions]
        with clock("read"):
            pixels_BCHW, condition = images.tensors(self._device)
        if self._recipe.rollout.kind == "free_running":
            pixels_BCHW = pixels_BCHW[:, :, :0, :0]  # an image says which condition, and nothing else
        draws = self._rollout.draw(policy, pixels_BCHW, condition, kept, clock)
        sources = Sources(pixels_BCHW, draws.condition, images.image_ids, images.texts)
        if self._settings.keeps_pixels:
            terms = RewardTerms((len(kept), draws.samples_BGT.shape[1]))
        else:
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
            condition=arrays(draws.condition),
            reward_terms=arrays(terms.terms),
            reward_maps=arrays(terms.maps),
            missed=missed_arrays(terms),
            credit={} if credit is None else arrays(credit.columns),
            source={"pixels": images.pixels_BHWC} if self._settings.keeps_pixels else {},
            gradient_weights={} if credit is None else self._recipe.reward.differentiable_weights,
            higher_is_better=terms.higher_is_better,
            rollout=self._recipe.rollout.kind,
        )
        broken, pictures = _broken(sample_indices, images.broken), terms.pictures
        if pictures is None:
            return without_unsound(groups, terms.failures, broken)
        looks_at_images = self._recipe.rollout.kind == "teacher_forced"
        unjudged = UnjudgedGroups(
            groups=groups,
            failures=terms.failures,
            skipped=broken,
            pictures_BGCHW=pictures.pixels_BGCHW.cpu().numpy(),
            is_sound_BG=pictures.is_sound_BG.cpu().numpy(),
            images_BHWC=images.pixels_BHWC if looks_at_images else images.pixels_BHWC[:, :0, :0],
            texts=images.texts,
        )
        return ScoredGroups(None, broken, unjudged)

    def _credit(
        self, policy: Policy, draws: Draws, gradient_BTD: Tensor | None, clock: StageClock
    ) -> CodeCredit | None:
        if gradient_BTD is None or draws.hidden_BTD is None:
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


def _int32(tokens: Tensor) -> np.ndarray:
    return tokens.to(torch.int32).cpu().numpy()
