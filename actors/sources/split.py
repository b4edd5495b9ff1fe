"""Which images train and which are held out."""

from typing import Literal

import numpy as np

Split = Literal["train", "held_out"]


def split_indices(num_images: int, held_out_fraction: float, seed: int, split: Split) -> np.ndarray:
    """Sorted indices of a split; a function of the arguments alone. The fraction is rounded to whole images."""
    shuffled = np.random.default_rng(seed).permutation(num_images)
    num_held_out = round(num_images * held_out_fraction)
    return np.sort(shuffled[:num_held_out] if split == "held_out" else shuffled[num_held_out:])
