"""What old samples cost, and what the off-policy corrections give back: the algorithm in one process, its groups
sampled by a policy that is a fixed number of versions old. The service's groups are at most that old.

Every variant starts from the same generator and sees the same images; seeds differ in the order of the images and
in every draw. Scores are those of held-out images under teacher forcing.
"""

import argparse
import json
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

from actors.evaluation.held_out_chunk import HeldOutChunk
from actors.evaluation.models import EvaluationModels
from actors.sources.table import build_source
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.device import prepare_device
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.reward_terms import RewardTerms
from deploy.ablation.delayed import post_train_delayed

EVALUATION_SEED = 1000


@dataclass(frozen=True)
class Score:
    reward: float
    cross_entropy: float
    clip_fraction: float  # of the last step


def train(recipe: Recipe, delay: int, num_held_out: int) -> Score:
    """Post-train on groups `delay` versions old, and score the result."""
    device = prepare_device(recipe.compute)
    policy = load_policy(recipe, device)
    tokenizer, perceptual = load_tokenizer(recipe, device), load_perceptual_metric(recipe, device)
    source = build_source(recipe, "train")
    *_, report = post_train_delayed(policy, tokenizer, perceptual, source, recipe, device, delay)
    models = EvaluationModels(recipe, tokenizer, perceptual, device)
    held_out = HeldOutChunk(tuple(range(num_held_out)), EVALUATION_SEED).run(policy, models)
    mse_BG, lpips_BG = torch.from_numpy(held_out.mse_BG), torch.from_numpy(held_out.lpips_BG)
    reward = RewardTerms(mse_BG, lpips_BG).rewards(recipe.reward)
    return Score(float(reward.mean()), float(held_out.cross_entropy_B.mean()), report.clip_fraction)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="deploy/recipes/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 4, 16])
    parser.add_argument("--corrections", nargs="+", default=["none", "truncated"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=256)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    for delay in options.delays:
        for correction in options.corrections if delay else ["none"]:
            scores = [
                train(
                    with_changes(recipe, {"seed": seed, "learner.correction": correction}), delay, options.held_out
                )
                for seed in range(options.seeds)
            ]
            line = {"delay": delay, "correction": correction}
            for name in ("reward", "cross_entropy", "clip_fraction"):
                values = [getattr(score, name) for score in scores]
                line[name] = f"{fmean(values):.5f} ± {stdev(values):.5f}" if len(values) > 1 else values[0]
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
