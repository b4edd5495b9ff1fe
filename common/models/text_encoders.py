"""Captions to features, by whatever `--text-encoder` names: a T5 model, or words alone."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from common.models.word_encoder import PREFIX, WordEncoder, word_width


class CaptionEncoder(Protocol):
    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """float16 [L, D] of each caption, L at most the length that the encoder was made for."""


def caption_encoder(name: str, length: int) -> CaptionEncoder:
    """Raises UserError where it cannot be loaded."""
    if name.startswith(PREFIX):
        return WordEncoder(name, length)
    from common.models.t5.text_encoder import TextEncoder  # torch and transformers, only where asked for

    return TextEncoder(name, length)


@lru_cache(maxsize=1)
def loaded_encoder(name: str, length: int) -> CaptionEncoder:
    """The same, once per process."""
    return caption_encoder(name, length)


def encoder_width(name: str) -> int:
    """D, without loading weights. Raises UserError."""
    if name.startswith(PREFIX):
        return word_width(name)
    from common.models.t5.text_encoder import feature_width

    return feature_width(name)
