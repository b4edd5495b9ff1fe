"""Which image each sample index of a run refers to.

Sample indices count through the run: 0, 1, 2, … Each `num_images` of them form an epoch, which visits every image
once, in an order drawn from (seed, epoch).
"""

from functools import lru_cache

import numpy as np
import torch

from common.seeding import generator


class SampleOrder:
    def __init__(self, seed: int, num_images: int):
        self._seed = seed
        self._num_images = num_images
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def image_index(self, sample_index: int) -> int:
        epoch, position = divmod(sample_index, self._num_images)
        return int(self._permutation(epoch)[position])

    def _draw(self, epoch: int) -> np.ndarray:
        return torch.randperm(self._num_images, generator=generator(self._seed, "epoch order", epoch)).numpy()
