"""The reward of a recipe, with what its credit needs."""

from collections.abc import Mapping

import torch

from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.gradient_reward import GradientReward
from actors.rewards.perceptual import require_maps
from actors.rewards.preference import RewardModels
from actors.rewards.table import build_terms
from actors.rewards.term import RewardTerm
from common.config.algorithm import Credit, RewardSection
from common.config.recipe import Recipe
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.protocols import ImageTokenizer, PerceptualMetric


def load_reward(recipe: Recipe, device: torch.device) -> DecodedReward:
    """That of a recipe, with its tokenizer and metric loaded. Raises UserError."""
    return build_reward(
        recipe.reward,
        load_tokenizer(recipe, device),
        load_perceptual_metric(recipe, device),
        recipe.advantage.credit,
        recipe.compiled_decode_size,
        RewardModels(recipe, device),
    )


def build_reward(
    section: RewardSection,
    tokenizer: ImageTokenizer,
    perceptual: PerceptualMetric | None,
    credit: Credit = "sample",
    compiled_for: int | None = None,
    models: RewardModels | None = None,
) -> DecodedReward:
    """`perceptual` may be None where `section.lpips` is 0, and `models` without `section.preferences`.

    Raises UserError.
    The decoder is compiled for batches of `compiled_for` pictures, if that is not None.
    """
    if credit == "token" and section.lpips and perceptual is not None:
        require_maps(perceptual)
    return reward_of(section, tokenizer, build_terms(section, perceptual, models), credit, compiled_for)


def reward_of(
    section: RewardSection,
    tokenizer: ImageTokenizer,
    terms: Mapping[str, RewardTerm],
    credit: Credit,
    compiled_for: int | None = None,
) -> DecodedReward:
    """The same of terms that were built already."""
    if terms and (section.decode_dtype != "float32" or compiled_for is not None):
        tokenizer = tokenizer.for_scoring(getattr(torch, section.decode_dtype), compiled_for)
    if credit == "gradient":
        return GradientReward(tokenizer, terms, section)
    return DecodedReward(tokenizer, terms, section, has_maps=credit == "token")
