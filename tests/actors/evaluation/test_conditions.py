"""What pictures are drawn under. Letter: N pictures."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from actors.evaluation.conditions import class_labels, held_out_condition
from common.errors import BrokenImageError, DataError
from common.protocols import ImageSource, SourceImage


def no_images() -> ImageSource:
    raise AssertionError("these classes need no images")


labels = partial(class_labels, train=no_images)


def test_balanced_classes_come_in_turn() -> None:
    assert labels("balanced", 3, seed=7, sample_indices=(0, 1, 2, 3, 8)).tolist() == [0, 1, 2, 0, 2]


def test_a_uniform_class_depends_on_seed_and_index_alone() -> None:
    together_N = labels("uniform", 1000, seed=0, sample_indices=range(50))
    assert together_N.dtype == np.int64
    assert [labels("uniform", 1000, 0, (index,)).item() for index in range(50)] == together_N.tolist()
    assert (labels("uniform", 1000, 1, range(50)) != together_N).any()


def test_uniform_classes_are_drawn_about_equally_often() -> None:
    counts = np.bincount(labels("uniform", 4, seed=0, sample_indices=range(2000)), minlength=4)
    assert counts.sum() == 2000
    assert (abs(counts - 500) < 80).all()  # four standard deviations
    assert len(set(counts)) > 1  # drawn, not in turn


class Captioned:
    """Three images; those of `broken` cannot be read."""

    def __init__(self, broken: Sequence[int] = ()):
        self.broken = broken

    def __len__(self) -> int:
        return 3

    def read(self, index: int) -> SourceImage:
        if index in self.broken:
            raise BrokenImageError(f"image {index}", "cut short")
        return SourceImage(str(index), np.zeros((1, 1, 3), np.uint8), {"caption_mask": np.array([index])})


class Labelled:
    """Three images of class 3, one of class 7."""

    def __len__(self) -> int:
        return 4

    def read(self, index: int) -> SourceImage:
        label = np.int64(7 if index == 2 else 3)
        return SourceImage(str(index), np.zeros((1, 1, 3), np.uint8), {"label": label})


def test_held_out_captions_come_in_turn() -> None:
    assert held_out_condition(Captioned(), (0, 1, 2, 3, 7))["caption_mask"].tolist() == [[0], [1], [2], [0], [1]]


def test_the_caption_of_a_broken_image_is_replaced_by_the_next() -> None:
    assert held_out_condition(Captioned([1, 2]), (0, 1, 2))["caption_mask"].tolist() == [[0], [0], [0]]
    with pytest.raises(DataError, match=r"none of 3 images can be read.*image 0 is not a readable image"):
        held_out_condition(Captioned([0, 1, 2]), (1,))


def test_a_training_class_depends_on_seed_and_index_alone_and_has_the_share_of_the_data() -> None:
    def labels(seed: int, indices: Sequence[int]) -> list[int]:
        return class_labels("training", 1000, seed, indices, Labelled).tolist()

    together = labels(0, range(800))
    assert [labels(0, (index,))[0] for index in range(20)] == together[:20]
    assert labels(1, range(800)) != together
    counts = np.bincount(together)
    assert counts.nonzero()[0].tolist() == [3, 7]
    assert abs(counts[3] - 600) < 50  # four standard deviations
