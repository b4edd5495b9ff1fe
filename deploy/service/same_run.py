"""What a checkpoint must have in common with the recipe that goes on from it."""

from common.config.load import checked
from common.config.recipe import Recipe
from common.errors import RecipeError
from learner.checkpoint import CheckpointState

# What a checkpoint's samples and weights mean depends on these; anything else may change over a resume.
_FIXED = ("seed", "image_size", "source", "tokenizer", "policy", "group", "context")


def require_same_run(recipe: Recipe, state: CheckpointState) -> None:
    """RecipeError where the checkpoint belongs to another run than the recipe describes."""
    stored = checked(
        state.recipe,
        "the checkpoint to resume from has a recipe of another version (start anew with resume=never)",
    )
    before, now = stored.model_dump(mode="json"), recipe.model_dump(mode="json")
    changed = [key for key in _FIXED if now[key] != before[key]]
    for section, key in (("learner", "method"), ("learner", "images_per_step"), ("actors", "images_per_ticket")):
        if now[section][key] != before[section][key]:
            changed.append(f"{section}.{key}")
    if changed:
        raise RecipeError(
            f"the checkpoint to resume from was made with another {', '.join(changed)}: resume with the recipe "
            "in its run folder, or start anew with resume=never"
        )
