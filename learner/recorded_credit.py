"""Whether groups hold what the recipe's method and credit are built on; a replay may ask for another."""

from collections.abc import Mapping

from common.config.recipe import Recipe
from common.errors import RecipeError
from common.schema import GroupBatch


def require_credit(groups: GroupBatch, recipe: Recipe) -> None:
    """RecipeError where they do not, or where the gradient in them was weighed otherwise."""
    if recipe.is_scored_in_learner != bool(groups.source):
        held = "hold images, which grpo does without" if groups.source else "hold no images to compare with"
        raise RecipeError(
            f"learner.method is {recipe.learner.method}, and these groups {held}: leave learner.method as it was "
            "recorded"
        )
    credit = recipe.advantage.credit
    if credit == "gradient" and not groups.credit:
        raise RecipeError(
            "advantage.credit is gradient, and these groups were recorded without the reward's gradient: record "
            "them with advantage.credit=gradient, or learn from them with advantage.credit=sample"
        )
    weights = recipe.reward.differentiable_weights
    if credit == "gradient" and dict(groups.gradient_weights) != weights:
        raise RecipeError(
            f"the reward's gradient in these groups is that of {_listed(groups.gradient_weights)}, and the recipe "
            f"weighs {_listed(weights)}: leave the weights as they were recorded, or record with the new ones"
        )
    num_kept = groups.sampled_tokens_BGT.shape[1]
    if recipe.num_samples_kept > num_kept:
        name = next(iter(recipe.sampled_weights), "mse")
        raise RecipeError(
            f"reward.{name} compares samples under advantage.credit={credit}, and these groups keep {num_kept} of "
            f"{groups.group_size}, since they were recorded for credit by gradient alone: leave advantage.credit "
            "and the reward as they were recorded"
        )


def _listed(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} x {weight:g}" for name, weight in weights.items()) or "nothing"
