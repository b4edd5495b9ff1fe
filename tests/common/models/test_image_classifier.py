"""The classifier of generated images: its shapes, its independence of the batch, and that it learns."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.config.service import PretrainStage
from common.models.image_classifier import FEATURE_DIM, ImageClassifier
from common.seeding import generator
from learner.pretraining.loop import StageProgress, train_stage
from learner.pretraining.losses import classifier_loss


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


def test_training_with_its_loss_learns_labels(tmp_path: Path) -> None:
    model = classifier(4)
    pixels_NCHW, labels_N = bright_quarters(64)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        rows_B = torch.randint(64, (16,), generator=generator(0, "batch", step))
        return classifier_loss(model, pixels_NCHW[rows_B], labels_N[rows_B])

    seen: list[StageProgress] = []
    stage = PretrainStage(num_steps=30, lr=1e-2)
    train_stage(model, loss, stage, state_path=tmp_path / "state.pt", save_every=99, on_step=seen.append)
    assert seen[-1].loss < seen[0].loss
    assert seen[-1].shown["accuracy"] > seen[0].shown["accuracy"]
    assert (model(pixels_NCHW)[1].argmax(1) == labels_N).all()
