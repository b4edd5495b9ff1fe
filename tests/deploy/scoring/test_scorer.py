"""Scores of a generator, from chunks that somebody else works off."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.evaluation.chunks import EvaluationChunk, GenerateChunk, GeneratedPictures, HeldOutChunk, HeldOutResult
from actors.evaluation.picture_files import find_pictures
from actors.evaluation.pictures import HeldOutPictures
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from deploy.scoring.scorer import Evaluation, Scorer, mean_scores, spread

TEACHER_FORCED = (
    "held_out_reward",
    "held_out_psnr",
    "held_out_cross_entropy",
    "held_out_perplexity",
    "reconstruction_psnr",
    "held_out_mse",
    "reconstruction_mse",
)


MSE_ALONE = {"mse": 1.0}


class Worker:
    """Notes the chunks; errors are the seed, pictures are noise of their index."""

    def __init__(self, terms: Mapping[str, float] = MSE_ALONE, higher_is_better: Collection[str] = ()) -> None:
        self._terms = terms
        self._higher_is_better = frozenset(higher_is_better)
        self.chunks: list[EvaluationChunk] = []

    def __call__(self, chunks: Sequence[EvaluationChunk]) -> list[Any]:
        self.chunks += chunks
        return [self._result(chunk) for chunk in chunks]

    def _result(self, chunk: EvaluationChunk) -> Any:
        N = len(chunk.sample_indices)
        if isinstance(chunk, HeldOutChunk):
            seed_B = np.full(N, chunk.seed, np.float32)
            terms = {name: factor * seed_B for name, factor in self._terms.items()}
            return held_out_result(terms, self._higher_is_better, chunk)
        pixels, labels = self.generated(chunk)
        return GeneratedPictures(np.array(chunk.sample_indices), labels, pixels)

    def generated(self, chunk: GenerateChunk) -> tuple[np.ndarray, np.ndarray]:
        indices = np.array(chunk.sample_indices)
        draws = np.random.default_rng([chunk.seed, *chunk.sample_indices])
        pixels = draws.integers(256, size=(len(indices), 32, 32, 3), dtype=np.uint8)
        pixels[:, 0, 0, 0] = indices
        return pixels, indices % 10


def held_out_result(
    terms: Mapping[str, np.ndarray], higher_is_better: frozenset[str], chunk: HeldOutChunk
) -> HeldOutResult:
    """Four samples an image; a tenth of each term for the reconstruction; a cross-entropy of the image's index."""
    index_n = np.array(chunk.sample_indices, np.uint8)[: chunk.num_pictures]
    pixels_nHWC = np.zeros((len(index_n), 32, 32, 3), np.uint8) + index_n[:, None, None, None]
    return HeldOutResult(
        terms={name: np.repeat(term_B[:, None], 4, axis=1) for name, term_B in terms.items()},
        reconstruction={name: term_B / 10 for name, term_B in terms.items()},
        higher_is_better=higher_is_better,
        cross_entropy_B=np.array(chunk.sample_indices, np.float32),
        pictures=HeldOutPictures(pixels_nHWC, pixels_nHWC, pixels_nHWC[:, None]) if chunk.num_pictures else None,
    )


@pytest.fixture
def scored_recipe(recipe: Recipe, tmp_path: Path) -> Recipe:
    torch.manual_seed(0)
    path = tmp_path / "classifier.safetensors"
    save_weights(ImageClassifier(10).state_dict(), path)
    changes = {
        "evaluation.classifier": str(path),
        "evaluation.num_samples": 25,
        "evaluation.num_held_out": 5,
        "evaluation.seed": 3,
        "sampling.batch_size": 10,
        "reward.mse": 0.5,
    }
    return with_changes(recipe, changes)


@pytest.fixture
def scorer(scored_recipe: Recipe) -> Scorer:
    return Scorer(scored_recipe)


def test_work_is_cut_by_the_recipes_batch_sizes_for_each_seed(scorer: Scorer) -> None:
    worker = Worker()
    scorer.evaluate(worker, temperature=0.7, num_seeds=2)
    held_out = [chunk for chunk in worker.chunks if isinstance(chunk, HeldOutChunk)]
    assert held_out == [
        HeldOutChunk(indices, seed, len(indices)) for seed in (3, 4) for indices in ((0, 1), (2, 3), (4,))
    ]
    generated = [chunk for chunk in worker.chunks if isinstance(chunk, GenerateChunk)]
    assert [(len(chunk.sample_indices), chunk.seed, chunk.temperature) for chunk in generated] == [
        (size, seed, 0.7) for seed in (3, 4) for size in (10, 10, 5)
    ]
    assert [index for chunk in generated[:3] for index in chunk.sample_indices] == list(range(25))


def test_each_seed_is_scored_on_its_own_chunks(scorer: Scorer) -> None:
    one, other = scorer.evaluate(Worker(), temperature=1.0, num_seeds=2)
    assert one.scores["held_out_reward"] == pytest.approx(-0.5 * 3)  # half the error, no perceptual term
    assert other.scores["held_out_reward"] == pytest.approx(-0.5 * 4)
    assert one.pictures_NHWC[:, 0, 0, 0].tolist() == list(range(25))
    assert (one.pictures_NHWC != other.pictures_NHWC).any()
    assert one.scores["fd"] != other.scores["fd"]
    assert list(one.scores) == [*TEACHER_FORCED, "fd", "inception_score", "accuracy", "precision", "recall"]


def test_teacher_forced_scores_are_means_over_images_and_samples(scorer: Scorer) -> None:
    (result,) = scorer.evaluate(Worker(), temperature=1.0, num_seeds=1)
    assert {name: result.scores[name] for name in TEACHER_FORCED} == pytest.approx(
        {
            "held_out_reward": -1.5,
            "held_out_mse": 3,
            "held_out_psnr": 1.249387,  # 10 log10(4 / 3)
            "held_out_cross_entropy": 2,  # of 0, 1, 2, 3, 4
            "held_out_perplexity": 7.389056,  # e²
            "reconstruction_mse": 0.3,
            "reconstruction_psnr": 11.249387,
        },
        rel=1e-5,
    )


def test_perceptual_distances_are_scores_where_the_metric_is_loaded(scored_recipe: Recipe) -> None:
    scorer = Scorer(with_changes(scored_recipe, {"reward.lpips": 2}))
    (result,) = scorer.evaluate(Worker({"mse": 1, "lpips": 10}), temperature=1.0, num_seeds=1)
    assert result.scores["held_out_lpips"] == pytest.approx(30)
    assert result.scores["reconstruction_lpips"] == pytest.approx(3)
    assert result.scores["held_out_reward"] == pytest.approx(-61.5)


def test_a_term_of_one_s_own_is_a_score_by_its_name_and_counts_the_way_that_is_better(
    scored_recipe: Recipe,
) -> None:
    scorer = Scorer(with_changes(scored_recipe, {"reward.python": {"own:likeness": 2}}))
    (result,) = scorer.evaluate(Worker({"mse": 1, "likeness": 4}, {"likeness"}), temperature=1.0, num_seeds=1)
    assert result.scores["held_out_likeness"] == pytest.approx(12)
    assert result.scores["reconstruction_likeness"] == pytest.approx(1.2)
    assert result.scores["held_out_reward"] == pytest.approx(-0.5 * 3 + 2 * 12)
    assert "held_out_lpips" not in result.scores


def test_pictures_of_the_first_eight_held_out_images_come_along(scored_recipe: Recipe) -> None:
    scorer = Scorer(with_changes(scored_recipe, {"evaluation.num_held_out": 14, "actors.images_per_ticket": 4}))
    worker = Worker()
    (result,) = scorer.evaluate(worker, temperature=1.0, num_seeds=1)
    asked = [chunk.num_pictures for chunk in worker.chunks if isinstance(chunk, HeldOutChunk)]
    assert asked == [4, 4, 0, 0]
    assert result.held_out is not None
    assert result.held_out.source_NHWC[:, 0, 0, 0].tolist() == list(range(8))


def test_pictures_drawn_before_are_scored_like_drawn_ones(scorer: Scorer, tmp_path: Path) -> None:
    worker = Worker()
    (drawn,) = scorer.evaluate(worker, temperature=1.0, num_seeds=1)
    pictures = [worker.generated(chunk) for chunk in worker.chunks if isinstance(chunk, GenerateChunk)]
    path = tmp_path / "drawn.npz"
    pixels_NHWC, label_N = (np.concatenate(column) for column in zip(*pictures, strict=True))
    np.savez(path, arr_0=pixels_NHWC, labels=label_N)
    worker = Worker()
    result = scorer.evaluate_files(worker, find_pictures(path))
    assert result.scores == drawn.scores
    assert all(isinstance(chunk, HeldOutChunk) for chunk in worker.chunks)
    np.testing.assert_array_equal(result.pictures_NHWC, drawn.pictures_NHWC)
    np.savez(path, arr_0=pixels_NHWC)
    without_labels = scorer.evaluate_files(Worker(), find_pictures(path)).scores
    assert without_labels == {name: score for name, score in drawn.scores.items() if name != "accuracy"}


def test_too_few_pictures_are_refused(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "drawn.npz"
    np.savez(path, arr_0=np.zeros((19, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"drawn.npz holds 19 pictures: the scores need 20"):
        scorer.evaluate_files(Worker(), find_pictures(path))


def test_scores_of_seeds_are_averaged_and_their_spread_is_the_noise() -> None:
    evaluations = [Evaluation({"fd": value, "accuracy": 0.5}, np.zeros(0)) for value in (1.0, 2.0, 4.5)]
    assert mean_scores(evaluations) == {"fd": 2.5, "accuracy": 0.5}
    assert spread(evaluations) == {"fd": 3.5, "accuracy": 0.0}
    assert spread(evaluations[:1]) == {"fd": 0.0, "accuracy": 0.0}
