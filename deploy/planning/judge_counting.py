"""The arithmetic and memory of a judge actor, counted on fake tensors by the code that a run uses.

Letters: B images, G samples per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Self

import torch

from actors.rewards.term import Sources
from actors.rewards.term_set import TermSet
from common.config.recipe import Recipe
from common.judged_pictures import JudgedPictures
from deploy.planning.actor_counting import mean_of
from deploy.planning.judges import CLASSIFY
from deploy.planning.untrained_models import UntrainedModels, condition, pixels
from deploy.planning.work_meter import WorkMeter


@dataclass(frozen=True)
class JudgeWork:
    """A judge actor's work: FLOPs of the G samples of one image, and the bytes of those judged at once."""

    preferences: int  # with a prompt
    classifier: int
    peak_bytes: int

    @property
    def flops(self) -> int:
        return self.preferences + self.classifier

    @classmethod
    def mean(cls, works: Sequence[Self], shares: Sequence[float]) -> Self:
        """Of images of several kinds, by their shares; of the bytes the most."""
        peak = max(work.peak_bytes for work in works)
        return cls(**mean_of(works, shares, leave=("peak_bytes",)), peak_bytes=peak)


NO_JUDGING = JudgeWork(0, 0, 0)


@torch.no_grad()
def judge_work(recipe: Recipe, models: UntrainedModels) -> JudgeWork:
    """Follows `Judging.complete` of groups of one kind, for as many as it judges at once."""
    if not (recipe.reward.actors.count and recipe.reward.judged_weights):
        return NO_JUDGING
    B, G, side = recipe.groups_scored_at_once, recipe.group.size, recipe.image_size
    grid_size = isqrt(recipe.num_tokens) if recipe.has_reward_maps else None
    sources = Sources(pixels(recipe, B), condition(recipe, B), ("",) * B)
    with WorkMeter() as meter:
        bytes_BGCHW = torch.zeros(B, G, 3, side, side, dtype=torch.uint8)
        pictures = JudgedPictures(bytes_BGCHW, torch.ones(B, G, dtype=torch.bool))
        TermSet(models.judges.terms(recipe), grid_size).judge(pictures, sources, meter)
    return JudgeWork(meter.flops["score"] // B, meter.flops[CLASSIFY] // B, max(meter.peak_bytes.values()))
