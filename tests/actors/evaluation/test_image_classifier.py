"""The classifier of generated images: its shapes, its independence of the batch, and that it learns."""

import pytest
import torch
from torch import Tensor

from actors.evaluation.image_classifier import FEATURE_DIM, ImageClassifier
from learner.pretraining.classifier import shifted, train_classifier


def classifier(num_classes: int = 10) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(num_classes)


def bright_quarters(num_images: int) -> tuple[Tensor, Tensor]:
    """Noisy dark images [N, 3, 32, 32] with one bright quarter, whose number is the label."""
    draws = torch.Generator().manual_seed(0)
    pixels_NCHW = torch.rand(num_images, 3, 32, 32, generator=draws) - 1
    labels_N = torch.arange(num_images) % 4
    for image, label in zip(pixels_NCHW, labels_N.tolist(), strict=True):
        top, left = 16 * (label // 2), 16 * (label % 2)
        image[:, top : top + 16, left : left + 16] += 1
    return pixels_NCHW, labels_N


@pytest.mark.parametrize("side", [8, 32, 50])
def test_any_image_size_gives_features_and_logits(side: int) -> None:
    features_BD, logits_BK = classifier(7)(torch.zeros(2, 3, side, side))
    assert features_BD.shape == (2, FEATURE_DIM)
    assert logits_BK.shape == (2, 7)


def test_the_classifier_is_small() -> None:
    assert sum(parameter.numel() for parameter in classifier().parameters()) == 77_786


def test_an_image_scores_the_same_alone_as_in_a_batch_and_in_training_mode() -> None:
    model = classifier()
    pixels_BCHW, _ = bright_quarters(4)
    together_BD, _ = model(pixels_BCHW)
    alone_BD, _ = model.eval()(pixels_BCHW[2:3])
    torch.testing.assert_close(alone_BD[0], together_BD[2], rtol=1e-4, atol=1e-5)


def test_training_learns_labels_and_leaves_eval_mode() -> None:
    model = classifier(4)
    pixels_NCHW, labels_N = bright_quarters(64)
    losses: list[float] = []

    train_classifier(
        model,
        pixels_NCHW,
        labels_N,
        num_steps=30,
        batch_size=16,
        lr=1e-2,
        seed=0,
        on_step=lambda step, loss: losses.append(loss),
    )

    assert len(losses) == 30
    assert not model.training
    assert (model(pixels_NCHW)[1].argmax(1) == labels_N).all()


def test_equal_seeds_train_equal_weights() -> None:
    pixels_NCHW, labels_N = bright_quarters(16)
    models = [classifier(4), classifier(4)]
    for model in models:
        train_classifier(model, pixels_NCHW, labels_N, num_steps=3, batch_size=4, lr=1e-2, seed=5)
    assert torch.equal(models[0].to_logits.weight, models[1].to_logits.weight)


def test_a_shift_moves_the_whole_image_and_repeats_its_edge() -> None:
    ramp_HW = torch.arange(8.0).expand(8, 8)  # the column number
    moved_BCHW = shifted(ramp_HW.expand(200, 1, 8, 8), torch.Generator().manual_seed(0))
    rows = {tuple(image[0, 0].tolist()) for image in moved_BCHW}
    assert rows == {tuple(min(max(column + by, 0), 7) for column in range(8)) for by in (-2, -1, 0, 1, 2)}
