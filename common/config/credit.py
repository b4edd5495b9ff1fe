"""What `advantage.credit` cannot be combined with, a sentence each, with what to change."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.config.algorithm import AdvantageSection, LearnerSection

if TYPE_CHECKING:
    from common.config.recipe import Recipe


def credit_problems(recipe: "Recipe") -> Iterator[str]:
    if recipe.advantage.credit == "gradient":
        yield from _of_gradient(recipe)
    else:
        yield from _of_samples(recipe)


def _of_samples(recipe: "Recipe") -> Iterator[str]:
    credit = recipe.advantage.credit
    if recipe.group.size == 1 and recipe.learner.method == "grpo":
        yield (
            f"group.size is 1 and advantage.credit is {credit}, which compares the samples of a group: set "
            "group.size to 2 or more, or advantage.credit=gradient"
        )
    for key in ("scale", "curvature"):
        value = getattr(recipe.advantage, key)
        if value != AdvantageSection.model_fields[key].default:
            yield (
                f"advantage.{key} is {value}, which is for advantage.credit gradient, and advantage.credit is "
                f"{credit}: set advantage.credit=gradient, or leave advantage.{key} out"
            )


def _of_gradient(recipe: "Recipe") -> Iterator[str]:
    names = ", ".join(recipe.sampled_weights)
    if not recipe.reward.differentiable_weights:
        yield (
            f"advantage.credit is gradient, but no weighed term of the reward has one ({names or 'none'}): "
            "give reward.mse, reward.lpips or reward.l1 a weight, or set advantage.credit=sample"
        )
    if names and recipe.group.size == 1:
        yield (
            f"group.size is 1, but reward.python names {names}, and terms without a gradient compare the samples "
            "of a group: set group.size to 2 or more, or leave reward.python out"
        )
    if recipe.profile == "published":
        yield (
            "profile is published and advantage.credit is gradient, which the released scripts do not know: set "
            "profile=corrected, or advantage.credit=sample"
        )
    yield from _unused(recipe.advantage, "advantage", ("radius", "mix"), "is for credit token")
    if not names:
        yield from _unused(
            recipe.advantage, "advantage", ("normalize_std",), "is for samples; see advantage.scale"
        )
        yield from _unused(recipe.learner, "learner", ("correction", "ratio"), "needs a ratio, and there is none")


def _unused(
    section: AdvantageSection | LearnerSection, name: str, keys: tuple[str, ...], why: str
) -> Iterator[str]:
    """What is set to another value than its default, and has no say."""
    for key in keys:
        value, default = getattr(section, key), type(section).model_fields[key].default
        if value != default:
            said = str(value).lower() if isinstance(value, bool) else value
            yield (
                f"{name}.{key} is {said} and advantage.credit is gradient ({key} {why}): leave {name}.{key} out, "
                "or set another advantage.credit"
            )
