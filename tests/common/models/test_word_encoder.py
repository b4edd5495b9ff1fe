"""Captions by words alone."""

import numpy as np
import pytest

from common.errors import UserError
from common.models.text_encoders import caption_encoder, encoder_width, loaded_encoder


def features(*captions: str, length: int = 5) -> list[np.ndarray]:
    return caption_encoder("words:16", length).features(captions)


def test_a_word_is_the_same_direction_wherever_it_stands() -> None:
    one, other = features("A red apple", "apple, RED!")
    assert (one.shape, one.dtype) == ((3, 16), np.float16)
    assert (one[1] == other[1]).all()
    assert (one[2] == other[0]).all()
    assert (features("red")[0] == other[1]).all()  # in whatever company


def test_words_differ_like_noise() -> None:
    rows = caption_encoder("words:64", 500).features([" ".join(f"w{number}" for number in range(300))])[0]
    assert abs(rows.astype(np.float32).std() - 1) < 0.05
    unit = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    likeness = unit @ unit.T - np.eye(300)
    assert abs(likeness).max() < 0.7


def test_long_captions_are_cut_and_empty_ones_are_a_row_of_zeros() -> None:
    cut, empty, signs = features("one two three four five six seven", "", "?!")
    assert cut.shape == (5, 16)
    assert (empty.shape, signs.shape) == ((1, 16), (1, 16))
    assert not empty.any()


def test_the_width_stands_in_the_name() -> None:
    assert encoder_width("words:48") == 48
    assert loaded_encoder("words:48", 3) is loaded_encoder("words:48", 3)
    for name in ("words:", "words:0", "words:many", "words:-3", "words:999999"):
        with pytest.raises(UserError, match=rf"--text-encoder is {name}: words:64 has 64 numbers a word"):
            encoder_width(name)
