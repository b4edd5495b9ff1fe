"""Which images train and which are held out."""

from typing import Literal

import numpy as np

from common.config.data import SubsetKeys
from common.seeding import derive_seed

Split = Literal["train", "held_out"]


def split_indices(num_images: int, held_out_fraction: float, seed: int, split: Split) -> np.ndarray:
    """Sorted indices of a split; a function of the arguments alone. The fraction is rounded to whole images."""
    shuffled = np.random.default_rng(seed).permutation(num_images)
    num_held_out = round(num_images * held_out_fraction)
    return np.sort(shuffled[:num_held_out] if split == "held_out" else shuffled[num_held_out:])


def chosen_indices(num_images: int, spec: SubsetKeys, split: Split) -> np.ndarray:
    """Sorted indices of a split, the training images thinned out to `spec.fraction`.

    The held-out images stay all the same, so that runs on different fractions compare. With one seed, the
    images of a smaller fraction are among those of a larger one.
    """
    indices = split_indices(num_images, spec.held_out_fraction, spec.split_seed, split)
    if split == "held_out" or spec.fraction == 1 or not len(indices):
        return indices
    shuffled = np.random.default_rng(derive_seed(spec.seed, "fraction")).permutation(indices)
    return np.sort(shuffled[: max(1, round(len(indices) * spec.fraction))])
