"""What the terms of the reward need of the rest of a recipe, a sentence each, with what to change."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config.recipe import Recipe


def reward_problems(recipe: "Recipe") -> Iterator[str]:
    if not recipe.reward.classifier:
        return
    if recipe.policy.conditioning == "text":
        yield (
            "reward.classifier has a weight, but policy.conditioning is text, and captions have no classes: set "
            "reward.classifier=0"
        )
    if not recipe.classifier_checkpoint:
        yield (
            "reward.classifier has a weight and no weights file: set reward.classifier_checkpoint, or "
            "evaluation.classifier"
        )
    dropped = recipe.context.condition_drop
    if dropped and list(recipe.rollout.shares) == ["teacher_forced"]:
        yield (
            f"context.condition_drop is {dropped:g}, and reward.classifier needs the class of each group: set "
            "context.condition_drop=0"
        )
