"""Scores under teacher forcing, in chunks: groups of held-out images, and what the decoder can reach at best.

Letters: N images shown, B held-out images, G samples per group, S samples shown per group, T image tokens, D width
of hidden states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from actors.evaluation.models import EvaluationModels
from actors.evaluation.pictures import HeldOutPictures
from actors.image_batch import read_readable
from actors.judging import Judging
from actors.rewards.term import Sources
from actors.rollout_pipeline import RolloutPipeline
from actors.rollouts.rollout import RolloutSettings
from actors.scored_groups import ScoredGroups, UnjudgedGroups, arrays
from common.clock import StageClock
from common.machine import autocast
from common.protocols import Policy
from common.reward_terms import RewardTerms
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.token_distribution import TokenDistribution

SAMPLES_SHOWN = 4


@dataclass(frozen=True)
class HeldOutResult:
    """Facts; the caller weighs them. The terms are those of the reward, and the squared error in any case."""

    terms: Mapping[str, np.ndarray]  # float32 [B, G] by name; samples against their source images
    reconstruction: Mapping[str, np.ndarray]  # float32 [B]; of the target tokens: a ceiling for the samples
    higher_is_better: frozenset[str]  # names of terms
    cross_entropy_B: np.ndarray  # float32, nats per token; of the target tokens given the noisy context
    pictures: HeldOutPictures | None  # of the first images, where the chunk asks for them


@dataclass(frozen=True)
class Unscored:
    """In the place of a result: no image of the chunk could be read and scored."""

    reason: str

    @classmethod
    def of(cls, rollout: ScoredGroups) -> Self:
        first = rollout.skipped[0]
        return cls(f"{first.image_id}: {first.reason}")


@dataclass(frozen=True)
class UnjudgedHeldOut:
    """What a chunk came to before its judges have seen it: of all its groups, sound or not."""

    samples: UnjudgedGroups
    reconstructions: UnjudgedGroups  # the decoded target tokens: G is 1
    result: HeldOutResult  # without the terms that judges measure

    def complete(self, judging: Judging) -> HeldOutResult | Unscored:
        """The result, without the groups that a term failed on."""
        scored = self.samples.with_terms(judging.measure(self.samples))
        groups = scored.groups
        if groups is None:
            return Unscored.of(scored)
        ceiling = {**self.result.reconstruction, **_of_one(judging.measure(self.reconstructions))}
        is_sound_B = np.isin(self.samples.groups.sample_index_B, groups.sample_index_B)
        return replace(
            self.result,
            terms=groups.reward_terms,
            reconstruction={name: term_B[is_sound_B] for name, term_B in ceiling.items()},
            higher_is_better=groups.higher_is_better,
            cross_entropy_B=self.result.cross_entropy_B[is_sound_B],
        )


@dataclass(frozen=True)
class HeldOutChunk:
    """Teacher-forced groups of some held-out images; noise and samples are drawn from `seed`.

    The images are the same for every seed, so two seeds differ only by their draws.
    """

    sample_indices: tuple[int, ...]
    seed: int
    num_pictures: int = 0  # number of images to return pictures of

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> HeldOutResult | Unscored | UnjudgedHeldOut:
        """The result, or what judges need to complete it where they are apart."""
        rollout = self._rolled_out(policy, models)
        unjudged = rollout.unjudged
        groups = rollout.groups if unjudged is None else unjudged.groups
        if groups is None:
            return Unscored.of(rollout)
        # read again: a rollout keeps no pixels
        order = SampleOrder(models.recipe.seed, len(models.held_out))
        images = read_readable(models.held_out, [order.image_index(index) for index in groups.sample_index_B])
        pixels_BCHW, condition = images.tensors(models.device)
        sources = Sources(pixels_BCHW, condition, images.image_ids, images.texts)
        target_B1T = models.tokens(groups.target_tokens_BT)[:, None]
        ceiling = models.held_out_reward.measure(target_B1T, sources, StageClock())
        shows = self.num_pictures > 0
        result = HeldOutResult(
            terms=groups.reward_terms,
            reconstruction=_of_one(ceiling),
            higher_is_better=groups.higher_is_better,
            cross_entropy_B=_cross_entropy(policy, groups, models).cpu().numpy(),
            pictures=_pictures(groups, images.pixels_BHWC, models, self.num_pictures) if shows else None,
        )
        if unjudged is None or ceiling.pictures is None:
            return result
        both = UnjudgedHeldOut(unjudged, unjudged.of_others(ceiling.pictures), result)
        return both if models.judges_apart else both.complete(models.judging)

    def _rolled_out(self, policy: Policy, models: EvaluationModels) -> ScoredGroups:
        recipe, source = models.recipe.of_kind("teacher_forced"), models.held_out
        settings = RolloutSettings.of(recipe)
        context = replace(settings.context, level=lambda _: recipe.context.noise)  # whatever the place in the run
        settings = replace(
            settings,
            seed=self.seed,
            group_size=recipe.group.size,
            condition_drop=0.0,
            context=context,
            keeps_pixels=False,
        )
        order, reward = SampleOrder(recipe.seed, len(source)), models.held_out_reward
        pipeline = RolloutPipeline(recipe, source, models.tokenizer, reward, models.device, order, settings)
        return pipeline.roll_out(policy, 0, self.sample_indices, StageClock())


def _of_one(terms: RewardTerms) -> dict[str, np.ndarray]:
    """Float32 [B] by name, of a picture per image."""
    return arrays({name: term_B1[:, 0] for name, term_B1 in terms.terms.items()})


def _cross_entropy(policy: Policy, groups: GroupBatch, models: EvaluationModels) -> Tensor:
    """The CE prior of each group, float32 [B]: computed as in the learner, given the context and the condition.

    Only one image's logits exist at a time.
    """
    condition = {name: torch.from_numpy(column).to(models.device) for name, column in groups.condition.items()}
    target_BT = models.tokens(groups.target_tokens_BT)
    with autocast(models.recipe.compute, models.device):
        hidden_BTD = policy(condition, models.tokens(groups.context_tokens_BT), head=False)
        means = [
            TokenDistribution().log_probabilities(policy.logits(hidden_TD), target_T[:, None]).mean()
            for hidden_TD, target_T in zip(hidden_BTD, target_BT, strict=True)
        ]
    return -torch.stack(means)


def _pictures(
    groups: GroupBatch, pixels_BHWC: np.ndarray, models: EvaluationModels, num_pictures: int
) -> HeldOutPictures:
    shown = slice(num_pictures)
    samples_NST = groups.sampled_tokens_BGT[shown, :SAMPLES_SHOWN]
    samples_NSHWC = models.decoded(models.tokens(samples_NST.reshape(-1, samples_NST.shape[-1])))
    return HeldOutPictures(
        source_NHWC=pixels_BHWC[shown],
        reconstruction_NHWC=models.decoded(models.tokens(groups.target_tokens_BT[shown])),
        samples_NSHWC=samples_NSHWC.reshape(*samples_NST.shape[:2], *samples_NSHWC.shape[1:]),
    )
