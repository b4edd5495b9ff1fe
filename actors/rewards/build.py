"""The reward of a recipe, with what its credit needs."""

from collections.abc import Mapping

import torch

from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.gradient_reward import GradientReward
from actors.rewards.perceptual import require_maps
from actors.rewards.table import build_terms, load_judges
from actors.rewards.term import RewardTerm
from common.config.algorithm import Credit, RewardSection
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.protocols import ImageTokenizer, PerceptualMetric


def load_rewards(recipe: Recipe, device: torch.device) -> dict[Kind, DecodedReward]:
    """Those of a recipe, with its tokenizer and judges loaded. Raises UserError."""
    perceptual = load_perceptual_metric(recipe, device)
    _require_maps(recipe.reward, perceptual, recipe.advantage.credit)
    terms = build_terms(recipe.reward, perceptual, load_judges(recipe, device))
    return rewards_of(recipe, load_tokenizer(recipe, device), terms)


def rewards_of(
    recipe: Recipe, tokenizer: ImageTokenizer, terms: Mapping[str, RewardTerm], judges_apart: bool = False
) -> dict[Kind, DecodedReward]:
    """One for each kind of group that a step has, of the terms that are measured on it.

    With `judges_apart` it measures those that compare with the image, and hands the pictures over for the others.
    """
    rewards = {}
    for kind in recipe.rollout.shares:
        own = recipe.of_kind(kind)
        apart = own.reward.judged_weights if judges_apart else {}
        measured = {name: terms[name] for name in own.reward.weights if name not in apart}
        credit, compiled_for = own.advantage.credit, own.compiled_decode_size
        rewards[kind] = reward_of(own.reward, tokenizer, measured, credit, compiled_for, bool(apart))
    return rewards


def build_reward(
    section: RewardSection,
    tokenizer: ImageTokenizer,
    perceptual: PerceptualMetric | None,
    credit: Credit = "sample",
    compiled_for: int | None = None,
) -> DecodedReward:
    """`perceptual` may be None where `section.lpips` is 0. Judges have no place here. Raises RecipeError.

    The decoder is compiled for batches of `compiled_for` pictures, if that is not None.
    """
    _require_maps(section, perceptual, credit)
    return reward_of(section, tokenizer, build_terms(section, perceptual), credit, compiled_for)


def reward_of(
    section: RewardSection,
    tokenizer: ImageTokenizer,
    terms: Mapping[str, RewardTerm],
    credit: Credit,
    compiled_for: int | None = None,
    hands_over: bool = False,
) -> DecodedReward:
    """The same of terms that were built already; one that `hands_over` gives pictures for judges elsewhere."""
    if (terms or hands_over) and (section.decode_dtype != "float32" or compiled_for is not None):
        tokenizer = tokenizer.for_scoring(getattr(torch, section.decode_dtype), compiled_for)
    if credit == "gradient":
        return GradientReward(tokenizer, terms, section, hands_over)
    return DecodedReward(tokenizer, terms, section, credit == "token", hands_over)


def _require_maps(section: RewardSection, perceptual: PerceptualMetric | None, credit: Credit) -> None:
    if credit == "token" and section.lpips and perceptual is not None:
        require_maps(perceptual)
