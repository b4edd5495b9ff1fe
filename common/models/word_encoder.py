"""Captions to features without a language model: each word is a direction of its own, drawn from its letters.

Named `words:D`, with D numbers a word, where a text encoder is asked for. It needs no weights and knows no
meaning: for small generators that learn their words from scratch.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from common.errors import UserError
from common.image_shards import FEATURE_TYPE

PREFIX = "words:"
_WORD = re.compile(r"\w+")


class WordEncoder:
    def __init__(self, name: str, length: int):
        self._width, self._length = word_width(name), length

    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """float16 [L, D] of each caption: its first words, at most `length`; one row of zeros without any."""
        return [self._of(_WORD.findall(caption.lower())[: self._length]) for caption in captions]

    def _of(self, words: list[str]) -> np.ndarray:
        rows = [self._direction(word) for word in words] or [np.zeros(self._width)]
        return np.stack(rows).astype(FEATURE_TYPE)

    def _direction(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
        return np.random.default_rng(seed).standard_normal(self._width)


def word_width(name: str) -> int:
    """D of `words:D`. UserError where it is no number."""
    digits = name.removeprefix(PREFIX)
    if not digits.isdecimal() or not 0 < int(digits) <= 65536:
        raise UserError(f"--text-encoder is {name}: words:64 has 64 numbers a word, at most 65,536")
    return int(digits)
