"""Scores on sets whose score can be worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from actors.evaluation import scores as scores_file
from actors.evaluation.scores import (
    GenerationScores,
    Reference,
    accuracy,
    frechet_distance,
    inception_score,
    nearest_distance,
    precision_recall,
    psnr,
    score_generated,
    statistics,
)

SQUARE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
"""Each corner's third nearest neighbour is the opposite corner, at the square root of 2."""


def sure_of(classes: list[int], num_classes: int) -> Tensor:
    return 100.0 * torch.nn.functional.one_hot(torch.tensor(classes), num_classes)


def test_the_frechet_distance_of_equal_sets_is_zero() -> None:
    features_ND = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(statistics(features_ND), statistics(features_ND)) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_a_shifted_set_is_the_squared_shift() -> None:
    features_ND = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    shifted_ND = features_ND + torch.tensor([3.0, 0.0, 4.0])
    assert frechet_distance(statistics(shifted_ND), statistics(features_ND)) == pytest.approx(25, abs=1e-4)


def test_the_frechet_distance_of_a_stretched_set_is_the_squared_difference_of_deviations() -> None:
    # Unbiased covariance of the square's corners is I/3. Tripled: 9 I/3, so (3 - 1)² * 1/3 a feature.
    centred = SQUARE - 0.5
    assert frechet_distance(statistics(3 * centred), statistics(centred)) == pytest.approx(2 * 4 / 3)


def test_the_inception_score_of_sure_and_even_predictions_is_the_number_of_classes() -> None:
    assert inception_score(sure_of([0, 1, 2, 3, 4] * 3, 5)) == pytest.approx(5)


def test_the_inception_score_does_not_depend_on_the_order_of_rows() -> None:
    assert inception_score(sure_of([0] * 5 + [1] * 5, 2)) == pytest.approx(2)


def test_the_inception_score_of_one_class_or_of_no_idea_is_one() -> None:
    assert inception_score(sure_of([3] * 8, 5)) == pytest.approx(1)
    assert inception_score(torch.zeros(8, 5)) == pytest.approx(1)


def test_the_inception_score_of_uneven_classes_is_the_exponential_of_their_entropy() -> None:
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert inception_score(sure_of([0, 0, 0, 1], 2)) == pytest.approx(math.exp(entropy))


def test_the_inception_score_of_many_pictures_is_the_mean_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_file, "SPLIT", 4)
    one_class_then_all = [0, 0, 0, 0, 0, 1, 2, 3]
    assert inception_score(sure_of(one_class_then_all, 4)) == pytest.approx((1 + 4) / 2)
    entropy = 5 / 7 * math.log(7 / 5) + 2 / 7 * math.log(7)
    assert inception_score(sure_of(one_class_then_all[:7], 4)) == pytest.approx(
        math.exp(entropy)
    )  # no second part


def test_equal_sets_have_full_precision_and_recall() -> None:
    assert precision_recall(SQUARE, SQUARE) == (1.0, 1.0)


def test_disjoint_sets_have_neither_precision_nor_recall() -> None:
    assert precision_recall(SQUARE + 10, SQUARE) == (0.0, 0.0)


def test_good_samples_of_one_mode_have_precision_without_recall() -> None:
    # Reference: two squares. Generated: near the first one's middle, so small balls that no corner is in.
    reference_MD = torch.cat([SQUARE, SQUARE + 10])
    generated_ND = 0.5 + 0.01 * SQUARE
    assert precision_recall(generated_ND, reference_MD) == (1.0, 0.0)


def test_samples_beside_the_reference_cost_precision_and_not_recall() -> None:
    generated_ND = torch.cat([SQUARE, SQUARE + 10])
    assert precision_recall(generated_ND, SQUARE) == (0.5, 1.0)


@pytest.mark.parametrize("distances", [7, 100, 450])
def test_precision_and_recall_do_not_depend_on_how_many_distances_are_in_memory(
    distances: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.Generator().manual_seed(0)
    generated_ND, reference_MD = torch.randn(30, 3, generator=draws), 1.5 * torch.randn(40, 3, generator=draws)
    at_once = precision_recall(generated_ND, reference_MD)
    monkeypatch.setattr(scores_file, "DISTANCES_AT_ONCE", distances)
    assert precision_recall(generated_ND, reference_MD) == at_once
    assert all(0 < share < 1 for share in at_once)


def test_accuracy_is_the_share_of_largest_logits_at_the_label() -> None:
    assert accuracy(sure_of([0, 1, 2, 2], 3), torch.tensor([0, 1, 2, 0])) == 0.75


def test_all_scores_come_together() -> None:
    labels_N = torch.tensor([0, 1, 0, 1])
    scores = score_generated(SQUARE, sure_of([0, 1, 0, 1], 2), labels_N, Reference(statistics(SQUARE), SQUARE))
    assert scores.frechet_distance == pytest.approx(0, abs=1e-9)
    assert scores == GenerationScores(scores.frechet_distance, 2.0, accuracy=1.0, precision=1.0, recall=1.0)


def test_scores_that_lack_their_ground_are_left_out() -> None:
    scores = score_generated(SQUARE, sure_of([0, 1, 0, 1], 2), None, Reference(statistics(SQUARE + 3), None))
    assert scores.frechet_distance == pytest.approx(18)
    assert (scores.accuracy, scores.precision, scores.recall) == (None, None, None)
    assert scores.nearest_training is None


def test_the_nearest_training_picture_of_a_copy_is_at_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    train_MD, held_out_ND = torch.rand(60, 3, generator=generator), torch.rand(40, 3, generator=generator)
    by_hand = (held_out_ND[:, None] - train_MD).norm(dim=-1).amin(dim=1).median()
    assert nearest_distance(held_out_ND, train_MD) == pytest.approx(by_hand.item())
    monkeypatch.setattr("actors.evaluation.scores.DISTANCES_AT_ONCE", 200)  # three rows at a time
    assert nearest_distance(held_out_ND, train_MD) == pytest.approx(by_hand.item())
    reference = Reference(statistics(train_MD), train_MD, nearest_distance(held_out_ND, train_MD))

    def scored(features_ND: Tensor) -> float | None:
        return score_generated(features_ND, sure_of([0, 1] * 20, 2), None, reference).nearest_training

    assert scored(held_out_ND) == pytest.approx(1)
    assert scored(train_MD[:40]) == 0
    assert 0 < (scored(train_MD[:40] + 0.01) or 0) < 0.3


def test_psnr_is_that_of_a_peak_to_peak_range_of_two() -> None:
    assert psnr(torch.tensor([4.0, 0.04, 0.0])).tolist() == pytest.approx([0, 20, 100])
