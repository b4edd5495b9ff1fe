"""Every term of the reward by its name in a recipe: one line here, one key in `RewardSection`."""

from collections.abc import Callable, Mapping

import torch

from actors.rewards.classifier import ClassLogProbability
from actors.rewards.http_judge import HttpScores
from actors.rewards.own_term import own_term
from actors.rewards.perceptual import PerceptualDistance
from actors.rewards.pixel_errors import AbsoluteError, SquaredError
from actors.rewards.preference import RewardModels
from actors.rewards.term import RewardTerm
from common.config.algorithm import RewardSection
from common.config.recipe import Recipe
from common.config.reward_models import PREFERENCES
from common.models.loading import load_judge_classifier
from common.protocols import PerceptualMetric


def _perceptual(metric: PerceptualMetric | None) -> RewardTerm:
    assert metric is not None, "a reward with lpips needs a perceptual metric"
    return PerceptualDistance(metric)


TERMS: dict[str, Callable[[PerceptualMetric | None], RewardTerm]] = {
    "mse": lambda _: SquaredError(),
    "lpips": _perceptual,
    "l1": lambda _: AbsoluteError(),
}


def _http(recipe: Recipe, _: torch.device) -> RewardTerm:
    assert recipe.reward.http is not None, "it has a weight"
    return HttpScores(recipe.reward.http)


# Those that judge a picture by itself or by its prompt, with a model of their own or none.
JUDGES: dict[str, Callable[[Recipe, torch.device], RewardTerm]] = {
    "classifier": lambda recipe, device: ClassLogProbability(load_judge_classifier(recipe, device)),
    "http": _http,
}


def build_terms(
    section: RewardSection, perceptual: PerceptualMetric | None, judges: Mapping[str, RewardTerm] | None = None
) -> dict[str, RewardTerm]:
    """The terms that have a weight, in the order of their weights. Raises RecipeError."""
    own, judges = section.own_terms, judges or {}
    return {
        name: own_term(own[name]) if name in own else judges[name] if name in judges else TERMS[name](perceptual)
        for name in section.weights
    }


def load_judges(recipe: Recipe, device: torch.device, models: RewardModels | None = None) -> dict[str, RewardTerm]:
    """Those of the recipe's reward; `models` are of the preferences among them. Raises UserError."""
    models, weights = models or RewardModels(recipe, device), recipe.reward.weights
    judges = {name: make(recipe, device) for name, make in JUDGES.items() if name in weights}
    return judges | {name: models.term(name) for name in PREFERENCES if name in weights}
