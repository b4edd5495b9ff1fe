"""The classifier's loss and the shifts of images. That it learns: tests/actors/evaluation."""

import math

import pytest
import torch
from torch import Tensor

from learner.pretraining.losses import classifier_loss, shifted


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class BrightestThird(torch.nn.Module):
    """Logits are the mean brightness of the picture's left, middle and right third."""

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        thirds_B3 = pixels_BCHW.mean(dim=(1, 2)).unflatten(1, (3, -1)).mean(dim=2)
        return thirds_B3, thirds_B3


def test_the_loss_is_the_cross_entropy_of_the_classes() -> None:
    loss, shown = classifier_loss(BrightestThird(), torch.zeros(4, 3, 9, 9), torch.tensor([0, 1, 2, 0]))
    assert loss.item() == pytest.approx(math.log(3))
    assert shown == {"accuracy": 0.5}  # the first of equals
    ramp_BCHW = torch.arange(9.0).expand(4, 3, 9, 9)
    labels_B = torch.tensor([2, 2, 2, 0])
    loss, shown = classifier_loss(BrightestThird(), ramp_BCHW, labels_B)
    _, logits_BK = BrightestThird()(ramp_BCHW)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits_BK, labels_B).item())
    assert shown == {"accuracy": 0.75}


def test_a_shift_moves_the_whole_image_and_repeats_its_edge() -> None:
    ramp_HW = torch.arange(8.0).expand(8, 8)  # the column number
    moved_BCHW = shifted(ramp_HW.expand(200, 1, 8, 8), 2, draws())
    rows = {tuple(image[0, 0].tolist()) for image in moved_BCHW}
    assert rows == {tuple(min(max(column + by, 0), 7) for column in range(8)) for by in (-2, -1, 0, 1, 2)}
    assert all((image == image[:, :1]).all() for image in moved_BCHW)  # rows stay alike


def test_images_move_on_their_own_along_both_axes() -> None:
    point_BCHW = torch.zeros(200, 1, 9, 9)
    point_BCHW[:, :, 4, 4] = 1
    places = {tuple(image[0].nonzero()[0].tolist()) for image in shifted(point_BCHW, 2, draws())}
    reach = range(4 - 2, 5 + 2)
    assert places == {(row, column) for row in reach for column in reach}


def test_shifts_are_a_function_of_the_generator() -> None:
    pixels_BCHW = torch.rand(8, 3, 6, 6, generator=draws())
    assert shifted(pixels_BCHW, 2, draws(1)).equal(shifted(pixels_BCHW, 2, draws(1)))
    assert not shifted(pixels_BCHW, 2, draws(1)).equal(shifted(pixels_BCHW, 2, draws(2)))
