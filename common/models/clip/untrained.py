"""A small CLIP for a recipe's own pictures, with random weights: what `pretrain` trains as a judge."""

from math import log

import torch

from common.config.recipe import Recipe
from common.errors import RecipeError
from common.models.clip.network import Clip, ClipShape, TowerShape
from common.models.clip.tokenizer import NUM_OTHERS, ClipTokenizer, read_merges

PATCHES = 8  # along each side
CONTEXT_LENGTH = 32
PICTURE = TowerShape(width=128, layers=3, heads=2, hidden=512)
TEXT = TowerShape(width=64, layers=2, heads=1, hidden=256)
EMBEDDING = 64
SETTING = "reward_models.vocabulary"


def untrained_clip(recipe: Recipe) -> Clip:
    """With the byte pairs of `reward_models.vocabulary`. Raises RecipeError, and CheckpointError without that."""
    side, activation = recipe.image_size, recipe.reward_models.activation
    if side % PATCHES:
        raise RecipeError(f"image_size is {side}, and pretrain.clip cuts {PATCHES} patches along a side")
    if activation == "unknown":
        raise RecipeError(
            "reward_models.activation is unknown, and the weights that pretrain.clip writes do not say it: set "
            "reward_models.activation=gelu"
        )
    vocabulary = NUM_OTHERS + len(read_merges(recipe.reward_models.vocabulary, None, SETTING))
    shape = ClipShape(PICTURE, TEXT, EMBEDDING, side // PATCHES, PATCHES, CONTEXT_LENGTH, vocabulary)
    clip = Clip(shape, activation)
    with torch.no_grad():
        clip.logit_scale.fill_(log(1 / 0.07))  # as published
    return clip


def clip_tokenizer(recipe: Recipe) -> ClipTokenizer:
    return ClipTokenizer(read_merges(recipe.reward_models.vocabulary, None, SETTING), CONTEXT_LENGTH)
