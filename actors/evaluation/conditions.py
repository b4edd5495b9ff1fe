"""The conditions of free-running pictures: classes, prompts, or the captions of held-out images.

Letter: N pictures.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from common.errors import BrokenImageError, DataError
from common.protocols import Condition, ConditionRow, ImageSource, SourceImage
from common.seeding import generator

GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 fill the interval evenly


def class_labels(
    classes: Literal["balanced", "uniform", "training"],
    num_classes: int,
    seed: int,
    sample_indices: Sequence[int],
    train: Callable[[], ImageSource],
) -> np.ndarray:
    """int64 [N]. balanced: sample i has class i modulo `num_classes`. uniform: drawn from (seed, i) alone.

    training: that of an image of `train`, which is opened for this alone. However many samples there are, their
    images are spread evenly over the source, and over its classes where it lists one after the other: sample i
    takes the place i · GOLDEN modulo 1. A class drawn at random would add its noise to every score.
    """
    if classes == "balanced":
        return np.array(sample_indices) % num_classes
    if classes == "uniform":
        draws = [
            torch.randint(num_classes, (), generator=generator(seed, "free running class", index))
            for index in sample_indices
        ]
        return torch.stack(draws).numpy()
    source = train()
    places = [int(index * GOLDEN % 1 * len(source)) for index in sample_indices]
    return np.array([readable(source, place).condition["label"] for place in places])


def stacked(rows: Sequence[ConditionRow]) -> Condition:
    """The condition columns of N images, each of its own row."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def held_out_condition(source: ImageSource, sample_indices: Sequence[int]) -> Condition:
    """Condition columns of the source's images in turn: sample i takes image i modulo the number of images."""
    return stacked([readable(source, index).condition for index in sample_indices])


def readable(source: ImageSource, index: int) -> SourceImage:
    """Image `index` modulo their number or, if it is broken, the next that can be read."""
    for ahead in range(len(source)):
        try:
            return source.read((index + ahead) % len(source))
        except BrokenImageError as error:
            broken = error
    raise DataError(f"none of {len(source)} images can be read, for their conditions; the last: {broken}")
