"""From captions to the token ids of Janus-Pro's prompts, by the model's own tokenizer.json.

Letters: L tokens of a prompt.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError, UserError
from common.hub import located

FILE = "tokenizer.json"
BOS, PAD, START_OF_IMAGE = "<｜begin▁of▁sentence｜>", "<｜▁pad▁｜>", "<begin_of_image>"
_BEFORE, _AFTER = "<|User|>: ", f"\n\n<|Assistant|>:{START_OF_IMAGE}"


class PromptTokenizer:
    """A tokenizer.json of Janus, or the folder with one. Ids of special tokens are looked up by their names."""

    def __init__(self, path: str | Path, length: int):
        """Prompts have at most `length` tokens. `path` may be an hf:// address. Raises UserError."""
        self._tokenizer = _opened(str(path))
        self._bos, self._pad, _ = (_special(self._tokenizer, name, path) for name in (BOS, PAD, START_OF_IMAGE))
        self._after = self._ids(_AFTER)
        least = 1 + len(self._ids(_BEFORE)) + len(self._after)
        if length <= least:
            raise UserError(
                f"prompts of {length} tokens have no room for a caption, because {least} are the template's: "
                "raise the length of prompts (policy.prompt_length, --prompt-length)"
            )
        self._length = length

    @property
    def vocabulary_size(self) -> int:
        """One above the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def of_caption(self, caption: str) -> np.ndarray:
        """int32 [2, L]: the prompt, and its null twin, pads between the first and the last token.

        A prompt that would be longer loses the end of its caption. DataError if the caption is empty.
        """
        words = caption.strip()
        if not words:
            raise DataError("a caption is empty: give each picture and prompt some words")
        ids = [self._bos, *self._ids(_BEFORE + words + _AFTER)]
        if len(ids) > self._length:
            ids = ids[: self._length - len(self._after)] + self._after
        null = [ids[0], *[self._pad] * (len(ids) - 2), ids[-1]]
        return np.array([ids, null], np.int32)

    def of_captions(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [self.of_caption(caption) for caption in captions]

    def _ids(self, text: str) -> list[int]:
        # Without special tokens: whether a published file adds BOS itself is then of no consequence.
        return self._tokenizer.encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=1)
def loaded_tokenizer(path: str, length: int) -> PromptTokenizer:
    """The same, once per process."""
    return PromptTokenizer(path, length)


def _opened(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError(
            "prompts need the tokenizers package, which is not installed: pip install '.[text]'"
        ) from None
    file = located(path, "the prompts' tokenizer")
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"there is no {file}: name the {FILE} of the Janus-Pro model, or the folder that has it")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing narrower
        raise UserError(f"{file} is no tokenizer ({error}): get the {FILE} of the model anew") from None


def _special(tokenizer: Any, name: str, path: str | Path) -> int:
    number = tokenizer.token_to_id(name)
    if number is None:
        raise UserError(f"the tokenizer {path} has no token {name}: name the one of a Janus-Pro model")
    return number
