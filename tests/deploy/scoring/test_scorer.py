"""Scores of a generator, from chunks that somebody else works off."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.evaluation.chunks import EvaluationChunk, FeaturesChunk, GenerateChunk, PictureFeatures, ReferenceChunk
from actors.evaluation.features import build_features, extract_features
from actors.evaluation.held_out import HeldOutChunk, HeldOutResult, Unscored
from actors.evaluation.picture_files import find_pictures
from actors.evaluation.pictures import HeldOutPictures
from actors.evaluation.reference import reference_of
from actors.evaluation.scores import Reference, Statistics, score_generated, statistics
from actors.image_batch import read_readable
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.image_classifier import FEATURE_DIM, ImageClassifier
from common.models.loading import load_policy
from common.models.weights_files import save_weights
from common.pixels import to_tensor
from deploy.scoring.scorer import CPU, NUM_SHOWN, Evaluation, Scorer, _scored, in_process, mean_scores, spread

TEACHER_FORCED = (
    "held_out_reward",
    "held_out_psnr",
    "held_out_cross_entropy",
    "held_out_perplexity",
    "reconstruction_psnr",
    "held_out_mse",
    "reconstruction_mse",
)
FREE_RUNNING = ("fd", "inception_score", "accuracy", "precision", "recall", "nearest_training")
MSE_ALONE = {"mse": 1.0}


class Worker:
    """Notes the chunks; errors are the seed, pictures are noise of their index, and training images likewise."""

    def __init__(self, terms: Mapping[str, float] = MSE_ALONE, higher_is_better: Collection[str] = ()) -> None:
        self._terms = terms
        self._higher_is_better = frozenset(higher_is_better)
        self.chunks: list[EvaluationChunk] = []

    def __call__(self, chunks: Sequence[EvaluationChunk]) -> list[Any]:
        self.chunks += chunks
        return [self._result(chunk) for chunk in chunks]

    def of(self, kind: type) -> list[Any]:
        return [chunk for chunk in self.chunks if isinstance(chunk, kind)]

    def _result(self, chunk: EvaluationChunk) -> Any:
        if isinstance(chunk, HeldOutChunk):
            seed_B = np.full(len(chunk.sample_indices), chunk.seed, np.float32)
            terms = {name: factor * seed_B for name, factor in self._terms.items()}
            return held_out_result(terms, self._higher_is_better, chunk)
        if isinstance(chunk, ReferenceChunk):
            draws = np.random.default_rng(chunk.image_indices)
            return draws.random((len(chunk.image_indices), FEATURE_DIM), np.float32)
        assert isinstance(chunk, FeaturesChunk)
        pixels, labels = self.generated(chunk.generate)
        return PictureFeatures(*classified(pixels), labels, pixels[: chunk.num_shown])

    def generated(self, chunk: GenerateChunk) -> tuple[np.ndarray, np.ndarray]:
        indices = np.array(chunk.sample_indices)
        draws = np.random.default_rng([chunk.seed, *chunk.sample_indices])
        pixels = draws.integers(256, size=(len(indices), 32, 32, 3), dtype=np.uint8)
        pixels[:, 0, 0, 0] = indices
        return pixels, indices % 10


def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(10).eval()


@torch.no_grad()
def classified(pixels_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features_ND, logits_NK = classifier()(to_tensor(pixels_NHWC, CPU))
    return features_ND.numpy(), logits_NK.numpy()


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
    path = tmp_path / "classifier.safetensors"
    save_weights(classifier().state_dict(), path)
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
    assert worker.chunks[0] == ReferenceChunk(tuple(range(9)))  # the training split
    assert worker.chunks[1] == ReferenceChunk((0, 1, 2), "held_out")
    assert worker.of(HeldOutChunk) == [
        HeldOutChunk(indices, seed, len(indices)) for seed in (3, 4) for indices in ((0, 1), (2, 3), (4,))
    ]
    generated = [chunk.generate for chunk in worker.of(FeaturesChunk)]
    assert [(len(chunk.sample_indices), chunk.seed, chunk.temperature) for chunk in generated] == [
        (size, seed, 0.7) for seed in (3, 4) for size in (10, 10, 5)
    ]
    assert [index for chunk in generated[:3] for index in chunk.sample_indices] == list(range(25))
    assert len(worker.chunks) == 2 + 6 + 6


def test_each_seed_is_scored_on_its_own_chunks(scorer: Scorer) -> None:
    one, other = scorer.evaluate(Worker(), temperature=1.0, num_seeds=2)
    assert one.scores["held_out_reward"] == pytest.approx(-0.5 * 3)  # half the error, no perceptual term
    assert other.scores["held_out_reward"] == pytest.approx(-0.5 * 4)
    assert one.pictures_NHWC[:, 0, 0, 0].tolist() == list(range(25))
    assert (one.pictures_NHWC != other.pictures_NHWC).any()
    assert one.scores["fd"] != other.scores["fd"]
    assert list(one.scores) == [*TEACHER_FORCED, *FREE_RUNNING]


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


def test_pictures_of_the_first_eight_held_out_images_come_along(scored_recipe: Recipe) -> None:
    scorer = Scorer(with_changes(scored_recipe, {"evaluation.num_held_out": 14, "actors.images_per_ticket": 4}))
    worker = Worker()
    (result,) = scorer.evaluate(worker, temperature=1.0, num_seeds=1)
    assert [chunk.num_pictures for chunk in worker.of(HeldOutChunk)] == [4, 4, 0, 0]
    assert result.held_out is not None
    assert result.held_out.source_NHWC[:, 0, 0, 0].tolist() == list(range(8))


def test_the_first_hundred_free_running_pictures_come_along_and_no_others(scored_recipe: Recipe) -> None:
    worker = Worker()
    scorer = Scorer(with_changes(scored_recipe, {"evaluation.num_samples": 126, "sampling.batch_size": 42}))
    one, other = scorer.evaluate(worker, temperature=1.0, num_seeds=2)
    assert [chunk.num_shown for chunk in worker.of(FeaturesChunk)] == [42, 42, 16] * 2
    assert NUM_SHOWN == 100
    for result in (one, other):
        assert result.pictures_NHWC[:, 0, 0, 0].tolist() == list(range(100))


def test_scores_through_features_are_those_through_pixels(scored_recipe: Recipe) -> None:
    """As they were computed when pictures were sent: from the pixels of all pictures, in one place."""
    run_chunks = in_process(scored_recipe, load_policy(scored_recipe, CPU), CPU)
    (result,) = Scorer(scored_recipe).evaluate(run_chunks, temperature=0.8, num_seeds=1)
    parts = tuple(range(10)), tuple(range(10, 20)), tuple(range(20, 25))
    drawn = run_chunks([GenerateChunk(indices, 3, 0.8) for indices in parts])
    pixels_NHWC = np.concatenate([part.pixels_NHWC for part in drawn])
    train = build_source(scored_recipe, "train")
    features = build_features(scored_recipe, CPU)
    features_MD, _ = extract_features(features, [read_readable(train, range(len(train))).pixels_BHWC])
    held_out = build_source(scored_recipe, "held_out")
    held_out_ND, _ = extract_features(features, [read_readable(held_out, range(len(held_out))).pixels_BHWC])
    reference = reference_of(features_MD, held_out_ND)
    expected = score_generated(*extract_features(features, [pixels_NHWC]), torch.arange(25) % 10, reference)
    found = [result.scores[name] for name in FREE_RUNNING]
    assert found == pytest.approx(astuple(expected), rel=1e-6, abs=1e-6)
    assert result.scores["fd"] > 0.1
    np.testing.assert_array_equal(result.pictures_NHWC, pixels_NHWC)


def test_the_reference_is_asked_for_once(scorer: Scorer) -> None:
    worker = Worker()
    first, second = (scorer.evaluate(worker, temperature=1.0, num_seeds=1)[0] for _ in range(2))
    assert len(worker.of(ReferenceChunk)) == 2  # splits
    assert first.scores == second.scores


def test_the_training_images_of_a_reference_are_asked_for_in_the_batches_of_the_features(
    scored_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.evaluation.features.ClassifierFeatures.batch_size", 4)
    worker = Worker()
    Scorer(scored_recipe).evaluate(worker, temperature=1.0, num_seeds=1)
    assert worker.of(ReferenceChunk) == [
        ReferenceChunk(indices) for indices in ((0, 1, 2, 3), (4, 5, 6, 7), (8,))
    ] + [ReferenceChunk((0, 1, 2), "held_out")]


REAL_NHWC = np.random.default_rng(1).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
GAUSSIAN = {"mu": np.full(FEATURE_DIM, 0.5), "sigma": np.eye(FEATURE_DIM)}


@pytest.mark.parametrize(
    ("arrays", "has_pictures", "has_statistics"),
    [({"arr_0": REAL_NHWC}, True, False), (GAUSSIAN, False, True), ({"arr_0": REAL_NHWC} | GAUSSIAN, True, True)],
)
def test_a_file_is_the_reference_instead_of_the_training_images(
    scored_recipe: Recipe, tmp_path: Path, arrays: dict[str, np.ndarray], has_pictures: bool, has_statistics: bool
) -> None:
    np.savez(tmp_path / "reference.npz", **arrays)
    named = with_changes(scored_recipe, {"evaluation.reference": str(tmp_path / "reference.npz")})
    worker = Worker()
    (result,) = Scorer(named).evaluate(worker, temperature=1.0, num_seeds=1)
    assert worker.of(ReferenceChunk) == []
    real_MD = torch.from_numpy(classified(REAL_NHWC)[0])
    gaussian = Statistics(GAUSSIAN["mu"], GAUSSIAN["sigma"]) if has_statistics else statistics(real_MD)
    drawn = [worker.generated(chunk.generate) for chunk in worker.of(FeaturesChunk)]
    pixels_NHWC, label_N = (np.concatenate(column) for column in zip(*drawn, strict=True))
    features_ND, logits_NK = map(torch.from_numpy, classified(pixels_NHWC))
    reference = Reference(gaussian, real_MD if has_pictures else None)
    expected = score_generated(features_ND, logits_NK, torch.from_numpy(label_N), reference)
    assert result.scores["fd"] == pytest.approx(expected.frechet_distance, rel=1e-4)
    assert (result.scores.get("precision"), result.scores.get("recall")) == (expected.precision, expected.recall)


def test_pictures_drawn_before_are_scored_like_drawn_ones(scorer: Scorer, tmp_path: Path) -> None:
    worker = Worker()
    (drawn,) = scorer.evaluate(worker, temperature=1.0, num_seeds=1)
    pictures = [worker.generated(chunk.generate) for chunk in worker.of(FeaturesChunk)]
    path = tmp_path / "drawn.npz"
    pixels_NHWC, label_N = (np.concatenate(column) for column in zip(*pictures, strict=True))
    np.savez(path, arr_0=pixels_NHWC, labels=label_N)
    worker = Worker()
    result = scorer.evaluate_files(worker, find_pictures(path), CPU)
    assert result.scores == pytest.approx(drawn.scores, rel=1e-5)  # other batches, other last bits
    assert worker.chunks == worker.of(HeldOutChunk)
    np.testing.assert_array_equal(result.pictures_NHWC, drawn.pictures_NHWC)
    np.savez(path, arr_0=pixels_NHWC)
    without_labels = scorer.evaluate_files(Worker(), find_pictures(path), CPU).scores
    expected = {name: score for name, score in drawn.scores.items() if name != "accuracy"}
    assert without_labels == pytest.approx(expected, rel=1e-5)


def test_too_few_pictures_are_refused(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "drawn.npz"
    np.savez(path, arr_0=np.zeros((19, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"drawn.npz holds 19 pictures: the scores need 20"):
        scorer.evaluate_files(Worker(), find_pictures(path), CPU)


def test_scores_of_seeds_are_averaged_and_their_spread_is_the_noise() -> None:
    evaluations = [Evaluation({"fd": value, "accuracy": 0.5}, np.zeros(0)) for value in (1.0, 2.0, 4.5)]
    assert mean_scores(evaluations) == {"fd": 2.5, "accuracy": 0.5}
    assert spread(evaluations) == {"fd": 3.5, "accuracy": 0.0}
    assert spread(evaluations[:1]) == {"fd": 0.0, "accuracy": 0.0}


def test_the_pictures_shown_have_the_names_of_their_classes(scored_recipe: Recipe) -> None:
    (evaluation,) = Scorer(scored_recipe).evaluate(Worker(), temperature=1.0, num_seeds=1)
    assert len(evaluation.names) == len(evaluation.pictures_NHWC)
    assert list(evaluation.names[:12]) == [*"abc3456789", "a", "b"]  # the source has three classes


def test_terms_of_ones_own_say_which_is_better(scored_recipe: Recipe) -> None:
    own = {"tests.own_terms:term": 1, "tests.own_terms:Likeness": 1}
    worker = Worker({"mse": 1.0, "term": 1.0, "Likeness": 1.0}, {"Likeness"})
    with_own = with_changes(scored_recipe, {"reward.python": own})
    (evaluation,) = Scorer(with_own).evaluate(worker, temperature=1.0, num_seeds=1)
    assert evaluation.better == {"term": "lower", "Likeness": "higher"}
    (evaluation,) = Scorer(scored_recipe).evaluate(Worker(), temperature=1.0, num_seeds=1)
    assert evaluation.better == {}


def test_held_out_chunks_without_a_readable_image_are_left_out_unless_all_are() -> None:
    result = HeldOutResult({}, {}, frozenset(), np.zeros(1, np.float32), None)
    assert _scored([Unscored("a.png: cut short"), result]) == [result]
    with pytest.raises(DataError, match=r"none of the held-out images can be .* the first, a.png: cut short"):
        _scored([Unscored("a.png: cut short"), Unscored("b.png: gone")])
