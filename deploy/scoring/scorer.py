"""Scores of a generator: under teacher forcing on held-out images, and of its free-running pictures.

The process with the models runs the chunks: the reward actors of a run, or this process.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from actors.evaluation.chunks import (
    EvaluationChunk,
    EvaluationModels,
    GenerateChunk,
    GeneratedPictures,
    HeldOutChunk,
    HeldOutResult,
)
from actors.evaluation.features import build_features, extract_features
from actors.evaluation.picture_files import PictureFiles
from actors.evaluation.pictures import HeldOutPictures, joined
from actors.evaluation.reference import build_reference
from actors.evaluation.scores import psnr, score_generated
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.families import PolicyModule
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.reward_terms import RewardTerms

CPU = torch.device("cpu")
RunChunks = Callable[[Sequence[EvaluationChunk]], list[Any]]
Scores = dict[str, float]

NUM_SHOWN = 100  # free-running pictures
NUM_HELD_OUT_SHOWN = 8
LEAST_PICTURES = 20


@dataclass(frozen=True)
class Evaluation:
    scores: Scores
    pictures_NHWC: np.ndarray  # uint8, the first free-running pictures, classes in turn
    held_out: HeldOutPictures | None = None  # the first held-out images and the pictures made from them


class Scorer:
    """Holds the features and their statistics of the real images."""

    def __init__(self, recipe: Recipe, device: torch.device = CPU):
        """`device` computes the features of pictures."""
        self._recipe = recipe
        self._features = build_features(recipe, device)
        self._reference = build_reference(recipe, self._features)

    def evaluate(self, run_chunks: RunChunks, *, temperature: float, num_seeds: int) -> list[Evaluation]:
        """The scores for each of `num_seeds` sampling seeds, starting at `evaluation.seed`."""
        section = self._recipe.evaluation
        seeds = range(section.seed, section.seed + num_seeds)
        generate = [
            GenerateChunk(indices, seed, temperature)
            for seed in seeds
            for indices in _chunks(section.num_samples, self._recipe.sampling.batch_size)
        ]
        held_out = [chunk for seed in seeds for chunk in self._held_out_chunks(seed)]
        results = run_chunks([*held_out, *generate])
        parts = np.split(np.arange(len(held_out)), num_seeds), np.split(np.arange(len(generate)), num_seeds)
        return [
            self._score([results[i] for i in own_held_out], [results[len(held_out) + i] for i in own_generate])
            for own_held_out, own_generate in zip(*parts, strict=True)
        ]

    def evaluate_files(self, run_chunks: RunChunks, files: PictureFiles) -> Evaluation:
        """The scores of existing pictures, together with those under teacher forcing. Raises DataError."""
        if files.num_pictures < LEAST_PICTURES:
            raise DataError(f"{files.path} holds {files.num_pictures} pictures: the scores need {LEAST_PICTURES}")
        held_out = run_chunks(self._held_out_chunks(self._recipe.evaluation.seed))
        scores = self._held_out_scores(held_out) | self._free_running_scores(files.batches(), files.label_N)
        return Evaluation(scores, files.first(NUM_SHOWN), _shown(held_out))

    def _held_out_chunks(self, seed: int) -> list[HeldOutChunk]:
        return [
            HeldOutChunk(indices, seed, num_pictures=min(max(NUM_HELD_OUT_SHOWN - indices[0], 0), len(indices)))
            for indices in _chunks(self._recipe.evaluation.num_held_out, self._recipe.actors.images_per_ticket)
        ]

    def _score(self, held_out: list[HeldOutResult], generated: list[GeneratedPictures]) -> Evaluation:
        label_N = np.concatenate([part.label_N for part in generated])
        pictures = [part.pixels_NHWC for part in generated]
        scores = self._held_out_scores(held_out) | self._free_running_scores(pictures, label_N)
        return Evaluation(scores, np.concatenate(pictures)[:NUM_SHOWN], _shown(held_out))

    def _held_out_scores(self, held_out: list[HeldOutResult]) -> Scores:
        """Means over images and samples. Perplexity is the exponential of the mean cross-entropy."""
        mse_BG, lpips_BG = _joined(held_out, "mse_BG"), _joined(held_out, "lpips_BG")
        l1_BG = _joined(held_out, "l1_BG") if self._recipe.reward.l1_weight else None
        ceiling_B = _joined(held_out, "reconstruction_mse_B")
        cross_entropy_B = _joined(held_out, "cross_entropy_B")
        scores = {
            "held_out_reward": RewardTerms(mse_BG, lpips_BG, l1_BG).rewards(self._recipe.reward).mean(),
            "held_out_mse": mse_BG.mean(),
            "held_out_psnr": psnr(mse_BG).mean(),
            "held_out_cross_entropy": cross_entropy_B.mean(),
            "held_out_perplexity": cross_entropy_B.mean().exp(),
            "reconstruction_mse": ceiling_B.mean(),
            "reconstruction_psnr": psnr(ceiling_B).mean(),
        }
        if self._recipe.reward.lpips_weight:  # otherwise no perceptual metric is loaded
            scores["held_out_lpips"] = lpips_BG.mean()
            scores["reconstruction_lpips"] = _joined(held_out, "reconstruction_lpips_B").mean()
        return {name: float(score) for name, score in scores.items()}

    def _free_running_scores(self, pictures: Iterable[np.ndarray], label_N: np.ndarray | None) -> Scores:
        """Without accuracy if the pictures have no classes or the features know other classes."""
        features_ND, logits_NK = extract_features(self._features, pictures)
        has_labels = label_N is not None and self._features.knows_labels
        labels = torch.from_numpy(label_N) if has_labels else None
        scores = asdict(score_generated(features_ND, logits_NK, labels, self._reference))
        scores = {self._features.distance_name: scores.pop("frechet_distance"), **scores}
        return {name: score for name, score in scores.items() if score is not None}


def mean_scores(evaluations: Sequence[Evaluation]) -> Scores:
    return {key: float(np.mean([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def spread(evaluations: Sequence[Evaluation]) -> Scores:
    """Largest minus smallest of each score: the effect of the sampling seed alone."""
    return {key: float(np.ptp([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def in_process(recipe: Recipe, policy: PolicyModule, device: torch.device) -> RunChunks:
    """A function that runs chunks with a policy in this process."""
    models = EvaluationModels(
        recipe, load_tokenizer(recipe, device), load_perceptual_metric(recipe, device), device
    )
    return lambda chunks: [chunk.run(policy, models) for chunk in chunks]


def _joined(results: Sequence[HeldOutResult], column: str) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([getattr(result, column) for result in results]))


def _shown(results: Sequence[HeldOutResult]) -> HeldOutPictures | None:
    parts = [result.pictures for result in results if result.pictures is not None]
    return joined(parts) if parts else None


def _chunks(total: int, size: int) -> list[tuple[int, ...]]:
    return [tuple(range(start, min(start + size, total))) for start in range(0, total, size)]
