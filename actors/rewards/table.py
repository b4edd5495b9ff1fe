"""Every term of the reward by its name in a recipe: one line here, one key in `RewardSection`."""

from collections.abc import Callable

from actors.rewards.own_term import own_term
from actors.rewards.perceptual import PerceptualDistance
from actors.rewards.pixel_errors import AbsoluteError, SquaredError
from actors.rewards.term import RewardTerm
from common.config.algorithm import RewardSection
from common.protocols import PerceptualMetric


def _perceptual(metric: PerceptualMetric | None) -> RewardTerm:
    assert metric is not None, "a reward with lpips needs a perceptual metric"
    return PerceptualDistance(metric)


TERMS: dict[str, Callable[[PerceptualMetric | None], RewardTerm]] = {
    "mse": lambda _: SquaredError(),
    "lpips": _perceptual,
    "l1": lambda _: AbsoluteError(),
}


def build_terms(section: RewardSection, perceptual: PerceptualMetric | None) -> dict[str, RewardTerm]:
    """The terms that have a weight, in the order of their weights. Raises RecipeError."""
    own = section.own_terms
    return {name: own_term(own[name]) if name in own else TERMS[name](perceptual) for name in section.weights}
