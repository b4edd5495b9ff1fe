"""Preprocessing against OpenAI's by Pillow: resize the shorter side, crop the middle, normalise."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.models.clip.preprocess import MEAN, STD, prepared


def picture(height: int, width: int) -> Image.Image:
    """Smooth shapes, edges and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 100 * np.sin(x[..., None] / [9, 17, 31]) * np.cos(y[..., None] / [13, 29, 7])
    waves[height // 3 : height // 2, width // 4 : width // 2] = (200, 30, 60)
    return Image.fromarray((waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8))


def ours(image: Image.Image, size: int) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return prepared(pixels, size)[0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.mark.parametrize(
    "size", [(384, 384), (256, 256), (224, 224), (500, 333), (301, 480), (64, 64), (1025, 768)]
)
def test_a_picture_is_prepared_as_pillow_prepares_it(size: tuple[int, int]) -> None:
    image = picture(*size)
    theirs = open_clip.image_transform(224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))(image)
    difference = (ours(image, 224) - theirs).abs()
    assert difference.mean() < 0.0015
    assert difference.max() < 0.005


def test_what_lies_outside_of_a_picture_is_clamped() -> None:
    wild = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 3
    back = prepared(wild, 224) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert back.min() >= -1e-6
    assert back.max() <= 1 + 1e-6
    assert torch.equal(prepared(wild, 224), prepared(wild.clamp(0, 1), 224))
