"""Scores of a generator, from chunks that somebody else works off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.evaluation.chunks import EvaluationChunk
from actors.evaluation.generate_chunk import GenerateChunk, GeneratedPictures
from actors.evaluation.held_out_chunk import HeldOutChunk, HeldOutRewards
from actors.evaluation.image_classifier import ImageClassifier
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.llamagen.checkpoints import save_weights
from deploy.evaluation import Evaluation, Scorer, mean_scores, spread


class Worker:
    """Notes the chunks; rewards are minus the seed, pictures are noise of their index."""

    def __init__(self) -> None:
        self.chunks: list[EvaluationChunk] = []

    def __call__(self, chunks: Sequence[EvaluationChunk]) -> list[Any]:
        self.chunks += chunks
        return [self._result(chunk) for chunk in chunks]

    def _result(self, chunk: EvaluationChunk) -> Any:
        N = len(chunk.sample_indices)
        if isinstance(chunk, HeldOutChunk):
            seeds_BG = np.full((N, 4), chunk.seed, np.float32)
            return HeldOutRewards(seeds_BG, 10 * seeds_BG)
        indices = np.array(chunk.sample_indices)
        draws = np.random.default_rng([chunk.seed, *chunk.sample_indices])
        pixels = draws.integers(256, size=(N, 32, 32, 3), dtype=np.uint8)
        pixels[:, 0, 0, 0] = indices
        return GeneratedPictures(indices, indices % 10, pixels)


@pytest.fixture
def scorer(recipe: Recipe, tmp_path: Path) -> Scorer:
    torch.manual_seed(0)
    path = tmp_path / "classifier.safetensors"
    save_weights(ImageClassifier(10).state_dict(), path)
    changes = {
        "evaluation.classifier": str(path),
        "evaluation.num_samples": 25,
        "evaluation.num_held_out": 5,
        "evaluation.seed": 3,
        "sampling.batch_size": 10,
        "reward.mse_weight": 0.5,
    }
    return Scorer(with_changes(recipe, changes))


def test_work_is_cut_by_the_recipes_batch_sizes_for_each_seed(scorer: Scorer) -> None:
    worker = Worker()
    scorer.evaluate(worker, temperature=0.7, num_seeds=2)
    held_out = [chunk for chunk in worker.chunks if isinstance(chunk, HeldOutChunk)]
    assert held_out == [HeldOutChunk(indices, seed) for seed in (3, 4) for indices in ((0, 1), (2, 3), (4,))]
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
    assert one.scores.keys() == {
        "held_out_reward",
        "fd",
        "inception_score",
        "accuracy",
        "precision",
        "recall",
    }


def test_scores_of_seeds_are_averaged_and_their_spread_is_the_noise() -> None:
    evaluations = [Evaluation({"fd": value, "accuracy": 0.5}, np.zeros(0)) for value in (1.0, 2.0, 4.5)]
    assert mean_scores(evaluations) == {"fd": 2.5, "accuracy": 0.5}
    assert spread(evaluations) == {"fd": 3.5, "accuracy": 0.0}
    assert spread(evaluations[:1]) == {"fd": 0.0, "accuracy": 0.0}
