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


@pytest.mark.parametrize("number", [10, 97, 2000])
def test_training_classes_have_the_shares_of_the_data_however_many_are_drawn(number: int) -> None:
    def drawn(seed: int, indices: Sequence[int]) -> list[int]:
        return class_labels("training", 1000, seed, indices, Labelled).tolist()

    together = drawn(0, range(number))
    assert drawn(1, range(number)) == together  # the seed draws tokens alone
    assert [drawn(0, (index,))[0] for index in range(10)] == together[:10]
    assert set(together) == {3, 7}
    assert abs(together.count(7) - number / 4) < 1.5
