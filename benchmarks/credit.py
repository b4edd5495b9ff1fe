"""How well a step's gradient points where the reward rises: sample credit, credit by token, credit by gradient.

The *true* gradient of the expected reward is estimated with REINFORCE over many samples an image, each against
the mean of the others: two halves, whose agreement says how noisy their mean still is (Spearman-Brown). Each
estimator then makes a step's groups, and the learner its gradient, by the code of the service and without the
prior. Compared is the cosine of the two, divided by what the noise of the true one allows. It is no comparison of
lengths: AdamW and the clipping of the norm take those away.

*Cost* is what an actor does for an image after the policy's forward (sampling, decoding, measuring, the way back
through the decoder), in times of what it does for one of eight samples under sample credit. The estimators take
turns, and the shortest time of each counts.

The second table swaps single tokens for others that the policy proposes, and compares how the reward changes with
what credit by gradient predicts: the correlation over all swaps, and over those at one place of one image.

Letters: B images, M samples per image for the truth, G for an estimator, T image tokens, D numbers of a code.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from actors.image_batch import read_readable
from actors.rewards.build import build_reward
from actors.rewards.term import Sources
from actors.rollout_pipeline import RolloutPipeline
from actors.rollouts.rollout import RolloutSettings
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.models.families import PolicyModule, TokenizerModule, build_policy, build_tokenizer
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.models.weights_files import save_weights
from common.protocols import PerceptualMetric
from common.sample_order import SampleOrder
from common.schema import GroupBatch, concatenate
from common.token_distribution import TokenDistribution
from learner.train_step import Trainer

CPU = torch.device("cpu")
DIGITS = "deploy/recipes/mnist.yaml"
ESTIMATORS = (
    ("sample", 4), ("sample", 8), ("token", 4), ("token", 8),
    ("gradient", 1), ("gradient", 2), ("gradient", 4), ("gradient", 8),
)  # fmt: skip
BEFORE = ("read", "encode", "policy")  # stages of an actor that cost the same whatever the credit
COST_TURNS = 5
ONE_CONTEXT = {"context.noise": 0.0, "context.condition_drop": 0.0}  # every estimator has the same contexts
ALONE = {"learner.ce_weight": 0.0, "learner.lr": 1e-30, "learner.max_grad_norm": 1e30}  # a gradient, and no step


@dataclass(frozen=True)
class Case:
    """Models, and the images to reconstruct."""

    recipe: Recipe
    policy: PolicyModule
    tokenizer: TokenizerModule
    metric: PerceptualMetric | None


def case_of(path: str, overrides: list[str]) -> Case:
    """Of a recipe, with the weights that it names."""
    recipe = load_recipe(path, [*overrides, *_words(ONE_CONTEXT), *_words(ALONE)])
    metric = load_perceptual_metric(recipe, CPU)
    return Case(recipe, load_policy(recipe, CPU), load_tokenizer(recipe, CPU), metric)


def roll_out(case: Case, changes: dict[str, Any], num_images: int, seed: int) -> tuple[GroupBatch, float]:
    """Groups of the first images of the run, with samples drawn from `seed`; and the seconds after the forward."""
    recipe = with_changes(case.recipe, changes)
    source = build_source(recipe, "train")
    reward = build_reward(recipe.reward, case.tokenizer, case.metric, recipe.advantage.credit)
    settings = replace(RolloutSettings.of(recipe), seed=seed)
    order = SampleOrder(recipe.seed, len(source))
    pipeline = RolloutPipeline(recipe, source, case.tokenizer, reward, CPU, order, settings)
    clock, batches = StageClock(), []
    size = recipe.actors.images_per_ticket
    for start in range(0, num_images, size):
        indices = range(start, min(start + size, num_images))
        groups = pipeline.roll_out(case.policy, 0, indices, clock).groups
        assert groups is not None, "an image cannot be read"
        batches.append(groups)
    rewarding = sum(seconds for stage, seconds in clock.seconds.items() if stage not in BEFORE)
    return concatenate(batches), rewarding


def gradient(case: Case, changes: dict[str, Any], groups: GroupBatch) -> Tensor:
    """The learner's, of all parameters, as one vector."""
    trainer = Trainer(case.policy, with_changes(case.recipe, changes), CPU)
    trainer.train(groups, StageClock())
    return torch.cat([each.grad.flatten().clone() for each in case.policy.parameters() if each.grad is not None])


def true_gradient(case: Case, num_images: int, num_samples: int) -> tuple[Tensor, float]:
    """The mean of two halves, and the cosine that their mean can reach with the truth."""
    changes = {"advantage.credit": "sample", "advantage.normalize_std": False, "learner.advantage_clip": 1e30}
    half = {**changes, "group.size": num_samples // 2}
    halves = [gradient(case, half, roll_out(case, half, num_images, seed)[0]) for seed in (1_000_001, 1_000_002)]
    agreement = float(cosine(*halves))
    return halves[0] + halves[1], (2 * agreement / (1 + agreement)) ** 0.5 if agreement > 0 else float("nan")


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0)


@dataclass(frozen=True)
class Row:
    """An estimator: its cosines with the truth, one a sampling seed, and what its rewards cost an image."""

    credit: str
    group_size: int
    cosines: list[float]
    cost: float  # in times of decoding and measuring a sample

    def line(self) -> str:
        spread = stdev(self.cosines) if len(self.cosines) > 1 else 0.0
        return f"{self.credit:<10}{self.group_size:>3}{mean(self.cosines):>9.2f} ±{spread:5.2f}{self.cost:>9.1f}"


def compare(case: Case, num_images: int, num_samples: int, num_seeds: int) -> Iterator[Row]:
    """Every estimator against one true gradient."""
    truth, ceiling = true_gradient(case, num_images, num_samples)
    cost = costs(case)
    print(f"{'':>4}the true gradient's halves allow a cosine of {ceiling:.2f}; the others are divided by it")
    for credit, group_size in ESTIMATORS:
        changes = {"advantage.credit": credit, "group.size": group_size}
        steps = [
            gradient(case, changes, roll_out(case, changes, num_images, seed)[0])
            for seed in range(1, num_seeds + 1)
        ]
        cosines = [float(cosine(step, truth)) / ceiling for step in steps]
        yield Row(credit, group_size, cosines, cost[credit, group_size])


def costs(case: Case) -> dict[tuple[str, int], float]:
    """By estimator."""
    seconds: dict[tuple[str, int], list[float]] = {each: [] for each in ESTIMATORS}
    for _ in range(COST_TURNS):
        for credit, group_size in ESTIMATORS:
            changes = {"advantage.credit": credit, "group.size": group_size}
            seconds[credit, group_size].append(roll_out(case, changes, num_images=8, seed=1)[1])
    a_sample = min(seconds["sample", 8]) / 8
    return {each: min(turns) / a_sample for each, turns in seconds.items()}


@torch.no_grad()
def swaps(case: Case, num_images: int, num_places: int, num_swaps: int) -> dict[str, float]:
    """Correlations of the predicted and the real change of the reward, where one token becomes another.

    At `num_places` random places of each image, `num_swaps` tokens that the policy proposes. `within` a place: of
    the changes less their mean there.
    """
    groups, _ = roll_out(case, {"advantage.credit": "gradient", "group.size": 1}, num_images, seed=1)
    reward = build_reward(case.recipe.reward, case.tokenizer, case.metric)
    columns = {name: torch.from_numpy(column.copy()) for name, column in groups.condition.items()}
    contexts_BT = torch.from_numpy(groups.context_tokens_BT.copy()).long()
    distribution, draws = TokenDistribution.of(case.recipe.group), torch.Generator().manual_seed(0)
    source = build_source(case.recipe, "train")
    order = SampleOrder(case.recipe.seed, len(source))
    predicted, real = [], []
    for image in range(num_images):
        one = slice(image, image + 1)
        condition = {name: column[one] for name, column in columns.items()}
        pixels_1CHW, _ = read_readable(source, [order.image_index(image)]).tensors(CPU)
        tokens_T = torch.from_numpy(groups.sampled_tokens_BGT[image, 0].copy()).long()
        slope_TD = torch.from_numpy(groups.credit["gradient"][image].copy())
        places_P = torch.randperm(len(tokens_T), generator=draws)[:num_places]
        logits_PV = case.policy(condition, contexts_BT[one])[0, places_P]
        others_PK = distribution.draw(logits_PV, torch.rand(num_places, num_swaps, generator=draws))
        grids_PKT = tokens_T.expand(num_places, num_swaps, -1).clone()
        grids_PKT[torch.arange(num_places)[:, None], torch.arange(num_swaps), places_P[:, None]] = others_PK
        grids_1GT = torch.cat([tokens_T[None], grids_PKT.flatten(0, 1)])[None]
        sources = Sources(pixels_1CHW, condition, groups.image_id_B[one])
        rewards_G = reward.measure(grids_1GT, sources, StageClock()).rewards(case.recipe.reward.weights)[0]
        steps_PKD = case.tokenizer.codes(others_PK) - case.tokenizer.codes(tokens_T[places_P])[:, None]
        predicted.append((steps_PKD * slope_TD[places_P][:, None]).sum(dim=-1))
        real.append((rewards_G[1:] - rewards_G[0]).view(num_places, num_swaps))
    pairs_2NK = torch.stack([torch.cat(predicted), torch.cat(real)])
    return {
        "all": correlation(pairs_2NK),
        "within a place": correlation(pairs_2NK - pairs_2NK.mean(dim=2, keepdim=True)),
    }


def correlation(pairs_2NK: Tensor) -> float:
    return float(torch.corrcoef(pairs_2NK.flatten(1).double())[0, 1])


def untrained_vq16(folder: Path, image_size: int) -> Case:
    """VQ-16 and a small generator over its codebook, both with random weights, on enlarged digits."""
    digits = build_source(load_recipe(DIGITS, []), "train")
    for index in range(100):
        image = digits.read(index)
        path = folder / "pictures" / str(image.condition["label"]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.pixels).resize((image_size, image_size)).save(path)
    sections = {
        "image_size": image_size,
        "source": {"kind": "image_folder", "path": str(folder / "pictures")},
        "tokenizer": {"size": "vq16", "checkpoint": str(folder / "tokenizer.safetensors")},
        "policy": {
            "size": {"num_layers": 2, "num_heads": 2, "dim": 64, "ffn_multiple": 32},
            "num_classes": 10,
            "checkpoint": str(folder / "policy.safetensors"),
        },
        "reward": {"lpips": 0.0},
        "learner": {"num_steps": 1},
    }
    path = folder / "vq16.yaml"
    path.write_text(json.dumps(sections))
    recipe = load_recipe(path, [])
    torch.manual_seed(0)
    tokenizer = build_tokenizer(recipe.tokenizer, image_size=image_size)
    policy = build_policy(recipe.policy, codebook_size=tokenizer.codebook_size, grid_size=recipe.grid_size)
    assert isinstance(policy, LlamaGenTransformer)
    nn.init.normal_(policy.output.weight, std=0.1)  # LlamaGen's zero would leave the blocks without gradient
    save_weights(tokenizer.state_dict(), folder / "tokenizer.safetensors")
    save_weights(policy.state_dict(), folder / "policy.safetensors")
    return case_of(str(path), [])


def _words(changes: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.credit", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--recipe", action="append", metavar="RECIPE", help="instead of the digits; again for more"
    )
    parser.add_argument("--images", type=int, default=64, help="B (default 64)")
    parser.add_argument("--samples", type=int, default=512, help="M (default 512)")
    parser.add_argument("--seeds", type=int, default=3, help="steps of each estimator (default 3)")
    parser.add_argument("--vq16", type=int, default=64, metavar="PX", help="image size of VQ-16; 0: without it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipes to set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    with TemporaryDirectory() as folder:
        cases = {path: partial(case_of, path, options.overrides) for path in options.recipe or [DIGITS]}
        if options.vq16:
            cases[f"vq16, {options.vq16} px, random weights"] = partial(untrained_vq16, Path(folder), options.vq16)
        for name, make in cases.items():
            print(name)
            num_images, num_samples = options.images, options.samples
            if name.startswith("vq16"):  # decodes slowly: ten minutes for the cost alone
                num_images, num_samples = num_images // 8, num_samples // 16
            results[name] = measure(make(), num_images, num_samples, options.seeds)
    print(json.dumps({"benchmark": "credit", **vars(options), "results": results}))


def measure(case: Case, num_images: int, num_samples: int, num_seeds: int) -> dict[str, Any]:
    print(f"    {'credit':<10}{'G':>3}{'cosine':>9}{'cost':>16}")
    rows = []
    for row in compare(case, num_images, num_samples, num_seeds):
        print(f"    {row.line()}", flush=True)
        rows.append(vars(row))
    found = swaps(case, min(16, num_images), num_places=8, num_swaps=8)
    print("    swaps of one token, correlation: " + ", ".join(f"{r:.2f} {what}" for what, r in found.items()))
    return {"estimators": rows, "swaps": found}


if __name__ == "__main__":
    main()
