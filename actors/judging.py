"""Terms of the reward that judge a picture by itself, for groups that somebody else has rolled out. No Ray.

The arithmetic is that of a reward actor which measures them itself: the same pictures, as many at once.

Letters: B groups, G samples per group.
"""

from math import isqrt

import numpy as np
import torch

from actors.rewards.decoded_reward import images_at_once
from actors.rewards.table import build_terms, load_judges
from actors.rewards.term import Sources
from actors.rewards.term_set import TermSet
from actors.scored_groups import ScoredGroups, UnjudgedGroups
from common.clock import StageClock
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.judged_pictures import JudgedPictures
from common.pixels import to_tensor
from common.reward_terms import RewardTerms


class Judging:
    def __init__(self, recipe: Recipe, device: torch.device):
        """Load the judges of the recipe's reward. Raises UserError."""
        self._section, self._device = recipe.reward, device
        terms = build_terms(recipe.reward.judging(), None, load_judges(recipe, device))
        self._judges: dict[Kind, TermSet] = {}
        for kind in recipe.rollout.shares:
            own = recipe.of_kind(kind)
            grid_size = isqrt(recipe.num_tokens) if own.has_reward_maps else None
            self._judges[kind] = TermSet({name: terms[name] for name in own.reward.judged_weights}, grid_size)

    @torch.no_grad()
    def complete(self, unjudged: UnjudgedGroups, clock: StageClock) -> ScoredGroups:
        """The groups with the terms that they lack."""
        groups, device = unjudged.groups, self._device
        condition = {name: torch.tensor(column, device=device) for name, column in groups.condition.items()}
        images_BCHW = to_tensor(np.array(unjudged.images_BHWC), device)  # the store's arrays are read-only
        sources = Sources(images_BCHW, condition, groups.image_id_B, unjudged.texts)
        pixels, is_sound = (torch.tensor(array) for array in (unjudged.pictures_BGCHW, unjudged.is_sound_BG))
        pictures, judges = JudgedPictures(pixels, is_sound), self._judges[groups.rollout]
        B, G = unjudged.is_sound_BG.shape
        parts = [
            judges.judge(pictures[images].to(device), sources[images], clock)
            for images in images_at_once(B, G, self._section)
        ]
        return unjudged.with_terms(RewardTerms.joined(parts))
