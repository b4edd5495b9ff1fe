"""Every term of the reward by its name in a recipe: one line here, one key in `RewardSection`."""

from collections.abc import Callable
from functools import partial

from actors.rewards.own_term import own_term
from actors.rewards.perceptual import PerceptualDistance
from actors.rewards.pixel_errors import AbsoluteError, SquaredError
from actors.rewards.preference import RewardModels
from actors.rewards.term import RewardTerm
from common.config.algorithm import RewardSection
from common.config.reward_models import PREFERENCES, Preference
from common.protocols import PerceptualMetric


def _perceptual(metric: PerceptualMetric | None, _: RewardModels | None) -> RewardTerm:
    assert metric is not None, "a reward with lpips needs a perceptual metric"
    return PerceptualDistance(metric)


def _preference(name: Preference, _: PerceptualMetric | None, models: RewardModels | None) -> RewardTerm:
    assert models is not None, f"a reward with {name} needs reward models"
    return models.term(name)


TERMS: dict[str, Callable[[PerceptualMetric | None, RewardModels | None], RewardTerm]] = {
    "mse": lambda *_: SquaredError(),
    "lpips": _perceptual,
    "l1": lambda *_: AbsoluteError(),
    **{name: partial(_preference, name) for name in PREFERENCES},
}


def build_terms(
    section: RewardSection, perceptual: PerceptualMetric | None, models: RewardModels | None = None
) -> dict[str, RewardTerm]:
    """The terms that have a weight, in the order of their weights. Raises UserError.

    `models` may be None where the section has no `preferences`.
    """
    own = section.own_terms
    return {
        name: own_term(own[name]) if name in own else TERMS[name](perceptual, models) for name in section.weights
    }
