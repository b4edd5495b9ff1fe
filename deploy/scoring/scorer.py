"""Scores of a generator: under teacher forcing on held-out images, and of its free-running pictures.

The process with the models runs the chunks: the reward actors of a run, or this process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from actors.evaluation.chunks import (
    NO_CLASS,
    EvaluationChunk,
    FeaturesChunk,
    GenerateChunk,
    PictureFeatures,
    ReferenceChunk,
)
from actors.evaluation.features import FEATURES, build_features, extract_features
from actors.evaluation.held_out import HeldOutChunk, HeldOutResult, Unscored
from actors.evaluation.models import EvaluationModels
from actors.evaluation.picture_files import PictureFiles
from actors.evaluation.pictures import HeldOutPictures, joined
from actors.evaluation.reference import read_reference, reference_indices, reference_of
from actors.evaluation.scores import Reference, psnr, score_generated
from actors.sources.build import build_source
from actors.sources.split import Split
from common.config.recipe import Recipe
from common.errors import DataError
from common.hub import located
from common.models.families import PolicyModule
from common.models.loading import load_perceptual_metric, load_tokenizer
from common.protocols import ImageTokenizer
from common.reward_terms import RewardTerms

CPU = torch.device("cpu")
RunChunks = Callable[[Sequence[EvaluationChunk]], list[Any]]
OnChunk = Callable[[int, int], None]  # told how many chunks of how many are done
Scores = dict[str, float]

NUM_SHOWN = 100  # free-running pictures
NUM_HELD_OUT_SHOWN = 8
LEAST_PICTURES = 20


@dataclass(frozen=True)
class Evaluation:
    scores: Scores
    pictures_NHWC: np.ndarray  # uint8, the first free-running pictures, classes in turn
    held_out: HeldOutPictures | None = None  # the first held-out images and the pictures made from them
    names: Sequence[str] = ()  # of the class that each of the pictures was asked for; empty without classes
    better: Mapping[str, str] = field(default_factory=dict)  # "higher" or "lower", of the user's own terms


class Scorer:
    """Adds up what others have looked at: whoever draws pictures sends their features, and keeps the pixels."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._kind = FEATURES[recipe.evaluation.features]
        self._reference: Reference | None = None  # once it was needed

    def evaluate(
        self, run_chunks: RunChunks, *, temperature: float, num_seeds: int, guidance_scale: float | None = None
    ) -> list[Evaluation]:
        """The scores for each of `num_seeds` sampling seeds, starting at `evaluation.seed`.

        A `guidance_scale` of None is the recipe's.
        """
        section = self._recipe.evaluation
        seeds = range(section.seed, section.seed + num_seeds)
        reference = self._reference_chunks()
        held_out = [chunk for seed in seeds for chunk in self._held_out_chunks(seed)]
        generate = [chunk for seed in seeds for chunk in self._features_chunks(seed, temperature, guidance_scale)]
        results = run_chunks([*reference, *held_out, *generate])
        self._learn_reference(reference, results[: len(reference)])
        results = results[len(reference) :]
        parts = np.split(np.arange(len(held_out)), num_seeds), np.split(np.arange(len(generate)), num_seeds)
        return [
            self._score([results[i] for i in own_held_out], [results[len(held_out) + i] for i in own_generate])
            for own_held_out, own_generate in zip(*parts, strict=True)
        ]

    def evaluate_files(self, run_chunks: RunChunks, files: PictureFiles, device: torch.device) -> Evaluation:
        """The scores of pictures that were drawn before, beside those under teacher forcing. Raises DataError.

        Their features are computed in this process, on `device`.
        """
        if files.num_pictures < LEAST_PICTURES:
            raise DataError(f"{files.path} holds {files.num_pictures} pictures: the scores need {LEAST_PICTURES}")
        reference = self._reference_chunks()
        results = run_chunks([*reference, *self._held_out_chunks(self._recipe.evaluation.seed)])
        self._learn_reference(reference, results[: len(reference)])
        held_out = _scored(results[len(reference) :])
        features_ND, logits_NK = extract_features(build_features(self._recipe, device), files.batches())
        scores = self._held_out_scores(held_out)
        scores |= self._free_running_scores(features_ND, logits_NK, files.label_N)
        shown_NHWC = files.first(NUM_SHOWN)
        return Evaluation(
            scores,
            shown_NHWC,
            _shown(held_out),
            self._names(files.label_N, len(shown_NHWC)),
            self._better(held_out),
        )

    def _reference_chunks(self) -> list[ReferenceChunk]:
        """The training images to compare with, and held-out ones beside them.

        None where they are known, or a file has the reference.
        """
        section = self._recipe.evaluation
        if self._reference is not None or section.reference:
            return []
        size = self._kind.batch_size
        of_splits: list[tuple[Split, int]] = [("train", section.num_reference), ("held_out", section.num_held_out)]
        return [
            ReferenceChunk(indices, split)
            for split, most in of_splits
            for indices in _cut(reference_indices(len(build_source(self._recipe, split)), most), size)
        ]

    def _learn_reference(self, chunks: Sequence[ReferenceChunk], parts: Sequence[np.ndarray]) -> None:
        if chunks:
            of_splits: dict[str, list[np.ndarray]] = {"train": [], "held_out": []}
            for chunk, part in zip(chunks, parts, strict=True):
                of_splits[chunk.split].append(part)
            train_MD, held_out_ND = (torch.from_numpy(np.concatenate(own)) for own in of_splits.values())
            self._reference = reference_of(train_MD, held_out_ND)
        elif self._reference is None:
            path = located(self._recipe.evaluation.reference, "evaluation.reference")
            self._reference = read_reference(path, self._kind.dim, lambda: build_features(self._recipe, CPU))

    def _features_chunks(self, seed: int, temperature: float, guidance_scale: float | None) -> list[FeaturesChunk]:
        chunks = _chunks(self._recipe.evaluation.num_samples, self._recipe.sampling.batch_size)
        return [
            FeaturesChunk(
                GenerateChunk(indices, seed, temperature, guidance_scale=guidance_scale),
                _num_of(indices, NUM_SHOWN),
            )
            for indices in chunks
        ]

    def _held_out_chunks(self, seed: int) -> list[HeldOutChunk]:
        return [
            HeldOutChunk(indices, seed, num_pictures=_num_of(indices, NUM_HELD_OUT_SHOWN))
            for indices in _chunks(self._recipe.evaluation.num_held_out, self._recipe.actors.images_per_ticket)
        ]

    def _score(
        self, held_out_results: list[HeldOutResult | Unscored], generated: list[PictureFeatures]
    ) -> Evaluation:
        held_out = _scored(held_out_results)
        features_ND = torch.from_numpy(np.concatenate([part.features_ND for part in generated]))
        logits_NK = torch.from_numpy(np.concatenate([part.logits_NK for part in generated]))
        label_N = np.concatenate([part.label_N for part in generated])
        scores = self._held_out_scores(held_out) | self._free_running_scores(features_ND, logits_NK, label_N)
        for name in self._recipe.evaluation.scores:
            scores[name] = float(np.concatenate([part.preferences[name] for part in generated]).mean())
        shown_NHWC = np.concatenate([part.shown_NHWC for part in generated])
        return Evaluation(
            scores, shown_NHWC, _shown(held_out), self._names(label_N, len(shown_NHWC)), self._better(held_out)
        )

    @cached_property
    def _class_names(self) -> Sequence[str]:
        return build_source(self._recipe, "train").class_names

    def _names(self, label_N: np.ndarray | None, num_shown: int) -> list[str]:
        """Of the classes of the first pictures; a class without a name is called by its number."""
        labels = [] if label_N is None else label_N[:num_shown].tolist()
        if NO_CLASS in labels:
            return []
        names = self._class_names if labels else ()
        return [names[label] if label < len(names) else str(label) for label in labels]

    def _better(self, held_out: list[HeldOutResult]) -> dict[str, str]:
        return _terms(held_out[0]).better(self._recipe.reward.own_terms)

    def _held_out_scores(self, held_out: list[HeldOutResult]) -> Scores:
        """Means over images and samples. Perplexity is the exponential of the mean cross-entropy."""
        terms = RewardTerms.joined([_terms(result) for result in held_out])
        ceilings = {name: np.concatenate([each.reconstruction[name] for each in held_out]) for name in terms.terms}
        cross_entropy_B = torch.from_numpy(np.concatenate([result.cross_entropy_B for result in held_out]))
        scores = {
            "held_out_reward": terms.rewards(self._recipe.reward.weights).mean(),
            "held_out_psnr": psnr(terms.terms["mse"]).mean(),
            "held_out_cross_entropy": cross_entropy_B.mean(),
            "held_out_perplexity": cross_entropy_B.mean().exp(),
            "reconstruction_psnr": psnr(torch.from_numpy(ceilings["mse"])).mean(),
        }
        scores |= {f"held_out_{name}": term_BG.mean() for name, term_BG in terms.terms.items()}
        scores |= {f"reconstruction_{name}": ceiling_B.mean() for name, ceiling_B in ceilings.items()}
        return {name: float(score) for name, score in scores.items()}

    def _free_running_scores(
        self, features_ND: torch.Tensor, logits_NK: torch.Tensor, label_N: np.ndarray | None
    ) -> Scores:
        """Without accuracy where the pictures have no classes, or the features know others."""
        assert self._reference is not None, "learned with the results"
        has_labels = label_N is not None and self._kind.knows_labels
        labels = torch.from_numpy(label_N) if has_labels else None
        scores = asdict(score_generated(features_ND, logits_NK, labels, self._reference))
        scores = {self._kind.distance_name: scores.pop("frechet_distance"), **scores}
        return {name: score for name, score in scores.items() if score is not None}


def mean_scores(evaluations: Sequence[Evaluation]) -> Scores:
    return {key: float(np.mean([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def spread(evaluations: Sequence[Evaluation]) -> Scores:
    """Largest minus smallest of each score: the effect of the sampling seed alone."""
    return {key: float(np.ptp([e.scores[key] for e in evaluations])) for key in evaluations[0].scores}


def in_process(
    recipe: Recipe,
    policy: PolicyModule,
    device: torch.device,
    on_chunk: OnChunk = lambda _done, _all: None,
    tokenizer: ImageTokenizer | None = None,
) -> RunChunks:
    """Runs chunks on a policy in this process, with the recipe's tokenizer unless there is another."""
    tokenizer = tokenizer or load_tokenizer(recipe, device)
    models = EvaluationModels(recipe, tokenizer, load_perceptual_metric(recipe, device), device)

    def run(chunks: Sequence[EvaluationChunk]) -> list[Any]:
        results = []
        for chunk in chunks:
            results.append(chunk.run(policy, models))
            on_chunk(len(results), len(chunks))
        return results

    return run


def _scored(results: Sequence[HeldOutResult | Unscored]) -> list[HeldOutResult]:
    scored = [result for result in results if isinstance(result, HeldOutResult)]
    if scored:
        return scored
    reasons = [result.reason for result in results if isinstance(result, Unscored)]
    raise DataError(f"none of the held-out images can be read and scored; the first, {reasons[0]}")


def _terms(result: HeldOutResult) -> RewardTerms:
    terms = {name: torch.from_numpy(np.array(term_BG)) for name, term_BG in result.terms.items()}
    shape = next(iter(terms.values())).shape
    return RewardTerms((shape[0], shape[1]), terms, higher_is_better=result.higher_is_better)


def _shown(results: Sequence[HeldOutResult]) -> HeldOutPictures | None:
    parts = [result.pictures for result in results if result.pictures is not None]
    return joined(parts) if parts else None


def _num_of(indices: tuple[int, ...], most: int) -> int:
    """How many of a chunk's are among the first `most` of all."""
    return min(max(most - indices[0], 0), len(indices))


def _chunks(total: int, size: int) -> list[tuple[int, ...]]:
    return _cut(range(total), size)


def _cut(indices: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]
