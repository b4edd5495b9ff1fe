"""The reward of a recipe, with what its credit needs."""

from collections.abc import Mapping

import torch

from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.gradient_reward import GradientReward
from actors.rewards.perceptual import require_maps
from actors.rewards.table import build_terms
from actors.rewards.term import RewardTerm
from common.config.algorithm import Credit, RewardSection
from common.protocols import ImageTokenizer, PerceptualMetric


def build_reward(
    section: RewardSection,
    tokenizer: ImageTokenizer,
    perceptual: PerceptualMetric | None,
    credit: Credit = "sample",
    compiled_for: int | None = None,
) -> DecodedReward:
    """`perceptual` may be None where `section.lpips` is 0. Raises RecipeError.

    The decoder is compiled for batches of `compiled_for` pictures, if that is not None.
    """
    if credit == "token" and section.lpips and perceptual is not None:
        require_maps(perceptual)
    return reward_of(section, tokenizer, build_terms(section, perceptual), credit, compiled_for)


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
