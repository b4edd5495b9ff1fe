"""The conditions of free-running pictures: classes, prompts, or the captions of held-out images.

Letters: N pictures, L valid caption tokens, P caption tokens including padding, D width of a caption feature.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from actors.sources.parquet import padded_left
from common.errors import BrokenImageError, DataError
from common.protocols import Condition, ImageSource
from common.seeding import generator


def class_labels(
    classes: Literal["balanced", "uniform"], num_classes: int, seed: int, sample_indices: Sequence[int]
) -> np.ndarray:
    """int64 [N]. balanced: sample i has class i modulo `num_classes`. uniform: drawn from (seed, i) alone."""
    if classes == "balanced":
        return np.array(sample_indices) % num_classes
    draws = [
        torch.randint(num_classes, (), generator=generator(seed, "free running class", index))
        for index in sample_indices
    ]
    return torch.stack(draws).numpy()


def caption_condition(captions: Sequence[np.ndarray], length: int) -> Condition:
    """Condition columns for float16 features [L, D] of N captions: padded [N, P, D], and their mask [N, P]."""
    columns = [padded_left(features_LD, length) for features_LD in captions]
    return {name: torch.from_numpy(np.stack([each[name] for each in columns])) for name in columns[0]}


def held_out_condition(source: ImageSource, sample_indices: Sequence[int]) -> Condition:
    """Condition columns of the source's images in turn: sample i takes image i modulo the number of images."""
    conditions = [_readable_condition(source, index) for index in sample_indices]
    return {name: torch.from_numpy(np.stack([each[name] for each in conditions])) for name in conditions[0]}


def _readable_condition(source: ImageSource, index: int):
    """The condition of image `index` or, if it is broken, of the next readable image."""
    for ahead in range(len(source)):
        try:
            return source.read((index + ahead) % len(source)).condition
        except BrokenImageError as error:
            broken = error
    raise DataError(f"none of {len(source)} held-out images can be read, for their captions; the last: {broken}")
