"""Scores of a generator: held-out reward under teacher forcing, and its free-running pictures.

Whoever holds the models runs the chunks: the reward actors of a run, or this process.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from actors.evaluation.chunks import EvaluationChunk
from actors.evaluation.generate_chunk import GenerateChunk, GeneratedPictures
from actors.evaluation.held_out_chunk import HeldOutChunk, HeldOutRewards
from actors.evaluation.image_classifier import ImageClassifier
from actors.evaluation.models import EvaluationModels
from actors.evaluation.scores import score_generated
from actors.image_batch import read_readable, to_tensor
from actors.sources.table import build_source
from common.config.recipe import Recipe
from common.models.families import PolicyModule
from common.models.llamagen.checkpoints import load_weights
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.paths import resolve
from learner.advantage import rewards

RunChunks = Callable[[Sequence[EvaluationChunk]], list[Any]]
Scores = dict[str, float]

NUM_REFERENCE = 10_000  # real images that free-running pictures are compared with, at the most
NUM_SHOWN = 100
BATCH = 250


@dataclass(frozen=True)
class Evaluation:
    scores: Scores
    pictures_NHWC: np.ndarray  # uint8, the first free-running ones, classes in turn


class Scorer:
    """Holds the classifier and the features of the real images."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._classifier = ImageClassifier(recipe.policy.num_classes).eval()
        load_weights(self._classifier, resolve(recipe.evaluation.classifier), what="evaluation.classifier")
        source = build_source(recipe, "train")
        indices = range(min(len(source), NUM_REFERENCE))
        features = [
            self._look(read_readable(source, indices[start : start + BATCH]).pixels_BHWC)[0]
            for start in range(0, len(indices), BATCH)
        ]
        self._reference_MD = torch.cat(features)

    def evaluate(self, run_chunks: RunChunks, *, temperature: float, num_seeds: int) -> list[Evaluation]:
        """The scores for each of `num_seeds` sampling seeds, from `evaluation.seed` on."""
        section = self._recipe.evaluation
        seeds = range(section.seed, section.seed + num_seeds)
        generate = [
            GenerateChunk(indices, seed, temperature)
            for seed in seeds
            for indices in _chunks(section.num_samples, self._recipe.sampling.batch_size)
        ]
        held_out = [
            HeldOutChunk(indices, seed)
            for seed in seeds
            for indices in _chunks(section.num_held_out, self._recipe.actors.images_per_ticket)
        ]
        results = run_chunks([*held_out, *generate])
        parts = np.split(np.arange(len(held_out)), num_seeds), np.split(np.arange(len(generate)), num_seeds)
        return [
            self._score([results[i] for i in own_held_out], [results[len(held_out) + i] for i in own_generate])
            for own_held_out, own_generate in zip(*parts, strict=True)
        ]

    def _score(self, held_out: list[HeldOutRewards], generated: list[GeneratedPictures]) -> Evaluation:
        mse_BG = torch.from_numpy(np.concatenate([part.mse_BG for part in held_out]))
        lpips_BG = torch.from_numpy(np.concatenate([part.lpips_BG for part in held_out]))
        pixels_NHWC = np.concatenate([part.pixels_NHWC for part in generated])
        label_N = torch.from_numpy(np.concatenate([part.label_N for part in generated]))
        features_ND, logits_NK = self._look(pixels_NHWC)
        scores = {"held_out_reward": float(rewards(mse_BG, lpips_BG, self._recipe.reward).mean())}
        scores |= asdict(score_generated(features_ND, logits_NK, label_N, self._reference_MD))
        return Evaluation(scores, pixels_NHWC[:NUM_SHOWN])

    @torch.no_grad()
    def _look(self, pixels_NHWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [
            self._classifier(to_tensor(pixels_NHWC[start : start + BATCH]))
            for start in range(0, len(pixels_NHWC), BATCH)
        ]
        features, logits = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)


def mean_scores(evaluations: Sequence[Evaluation]) -> Scores:
    return {key: float(np.mean([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def spread(evaluations: Sequence[Evaluation]) -> Scores:
    """Largest minus smallest of each score: what another sampling seed alone changes."""
    return {key: float(np.ptp([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def in_process(recipe: Recipe, policy: PolicyModule, device: torch.device) -> RunChunks:
    """Runs chunks on a policy in this process."""
    models = EvaluationModels(
        recipe, load_tokenizer(recipe, device), load_perceptual_metric(recipe, device), device
    )
    return lambda chunks: [chunk.run(policy, models) for chunk in chunks]


def _chunks(total: int, size: int) -> list[tuple[int, ...]]:
    return [tuple(range(start, min(start + size, total))) for start in range(0, total, size)]
