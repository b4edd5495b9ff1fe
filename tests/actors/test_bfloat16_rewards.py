"""Rewards from pictures decoded in bfloat16, with the digits' trained models on held-out digits."""

from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from actors.rewards.build import build_reward
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.load import load_recipe
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.reward_terms import RewardTerms

DEMO = Path(__file__).parents[2] / "deploy" / "recipes" / "mnist.yaml"
CPU = torch.device("cpu")


def rewards_of(dtype: str) -> np.ndarray:
    """Rewards [B, G] of the same samples, decoded in `dtype`."""
    recipe = load_recipe(DEMO, [f"reward.decode_dtype={dtype}"])
    tokenizer = load_tokenizer(recipe, CPU)
    reward = build_reward(recipe.reward, tokenizer, load_perceptual_metric(recipe, CPU))
    assert next(reward.tokenizer.decoder.parameters()).dtype == getattr(torch, dtype)
    pipeline = RolloutPipeline(recipe, build_source(recipe, "held_out"), tokenizer, reward, CPU)
    groups = pipeline.roll_out(load_policy(recipe, CPU), 0, range(6), StageClock()).groups
    assert groups is not None
    terms = {name: torch.from_numpy(term_BG) for name, term_BG in groups.reward_terms.items()}
    assert list(terms) == ["mse", "lpips"]
    return RewardTerms((6, recipe.group.size), terms).rewards(recipe.reward.weights).numpy()


def test_bfloat16_ranks_the_samples_of_a_group_as_float32_does() -> None:
    in_float32_BG, in_bfloat16_BG = rewards_of("float32"), rewards_of("bfloat16")
    assert not np.array_equal(in_float32_BG, in_bfloat16_BG)
    correlations = [spearmanr(*rows).statistic for rows in zip(in_float32_BG, in_bfloat16_BG, strict=True)]
    assert np.mean(correlations) > 0.98
