"""Pictures that somebody else has made, judged by themselves or by their prompts. No Ray.

The arithmetic is that of a reward actor which measures them itself: the same pictures, as many at once.

Letters: B groups, G samples per group, N pictures, H, W of a picture.
"""

from collections.abc import Sequence
from functools import cached_property
from math import isqrt

import numpy as np
import torch

from actors.rewards.decoded_reward import images_at_once
from actors.rewards.preference import RewardModels
from actors.rewards.table import build_terms, load_judges
from actors.rewards.term import RewardTerm, Sources
from actors.rewards.term_set import TermSet
from actors.scored_groups import ScoredGroups, UnjudgedGroups
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.judged_pictures import JudgedPictures
from common.pixels import to_tensor
from common.reward_terms import RewardTerms


class Judging:
    """The judges of a recipe. Those of the reward are loaded together, those of `evaluation.scores` one by one,
    when they are first needed; a model that both have, once."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self._recipe, self._device = recipe, device
        self._models = RewardModels(recipe, device)

    @cached_property
    def terms(self) -> dict[str, RewardTerm]:
        """Of the reward, in the order of their weights. Raises UserError where one cannot be loaded."""
        judges = load_judges(self._recipe, self._device, self._models)
        return build_terms(self._recipe.reward.judging(), None, judges)

    def complete(self, unjudged: UnjudgedGroups, clock: StageClock) -> ScoredGroups:
        """A ticket's groups with the terms that they lack."""
        return unjudged.with_terms(self._measured(self._of_kinds[unjudged.groups.rollout], unjudged, clock))

    def measure(self, unjudged: UnjudgedGroups) -> RewardTerms:
        """Every term that judges, whatever the kind of groups, and without maps: for scores."""
        return self._measured(TermSet(self.terms), unjudged, StageClock())

    @torch.no_grad()
    def preferences(self, pixels_NHWC: np.ndarray, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Float32 [N] by name, by the judges of `evaluation.scores`; pictures uint8 [N, H, W, 3]."""
        pixels_NCHW = (to_tensor(np.array(pixels_NHWC), self._device) + 1) / 2
        return {
            name: self._models.judge(name).judge(pixels_NCHW, prompts).cpu().numpy()
            for name in self._recipe.evaluation.scores
        }

    @cached_property
    def _of_kinds(self) -> dict[Kind, TermSet]:
        judges: dict[Kind, TermSet] = {}
        for kind in self._recipe.rollout.shares:
            own = self._recipe.of_kind(kind)
            grid_size = isqrt(self._recipe.num_tokens) if own.has_reward_maps else None
            judges[kind] = TermSet({name: self.terms[name] for name in own.reward.judged_weights}, grid_size)
        return judges

    @torch.no_grad()
    def _measured(self, judges: TermSet, unjudged: UnjudgedGroups, clock: StageClock) -> RewardTerms:
        groups, device = unjudged.groups, self._device
        condition = {name: torch.tensor(column, device=device) for name, column in groups.condition.items()}
        images_BCHW = to_tensor(np.array(unjudged.images_BHWC), device)  # the store's arrays are read-only
        sources = Sources(images_BCHW, condition, groups.image_id_B, unjudged.texts)
        pixels, is_sound = (torch.tensor(array) for array in (unjudged.pictures_BGCHW, unjudged.is_sound_BG))
        pictures = JudgedPictures(pixels, is_sound)
        B, G = unjudged.is_sound_BG.shape
        return RewardTerms.joined(
            [
                judges.judge(pictures[images].to(device), sources[images], clock)
                for images in images_at_once(B, G, self._recipe.reward)
            ]
        )
