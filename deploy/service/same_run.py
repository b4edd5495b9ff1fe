"""What a checkpoint must have in common with the recipe that goes on from it."""

from common.config.load import checked
from common.config.recipe import Recipe
from common.errors import CheckpointError, RecipeError
from common.models.adapter_files import base_of
from learner.checkpoint import Checkpoint, CheckpointState

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
    fixed = (
        ("learner", "method"),
        ("learner", "images_per_step"),
        ("learner", "lora"),
        ("actors", "images_per_ticket"),
    )
    for section, key in fixed:
        if now[section][key] != before[section][key]:
            changed.append(f"{section}.{key}")
    if changed:
        raise RecipeError(
            f"the checkpoint to resume from was made with another {', '.join(changed)}: resume with the recipe "
            "in its run folder, or start anew with resume=never"
        )


def require_same_base(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """CheckpointError where the checkpoint's adapters belong to other weights than the recipe's file now holds."""
    if checkpoint.base is None:
        return
    found = base_of(recipe.policy.checkpoint)
    if found.sha256 != checkpoint.base.sha256:
        raise CheckpointError(
            f"the adapters of {checkpoint.path} were trained beside weights with the sha256 "
            f"{checkpoint.base.sha256[:12]}, and {found.checkpoint} now holds others ({found.sha256[:12]}): put "
            "the former file there, or start anew with resume=never"
        )
