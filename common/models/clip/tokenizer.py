"""Texts to token ids by CLIP's byte pair encoding.

The vocabulary is a list of merges, in order: `bpe_simple_vocab_16e6.txt.gz` of OpenAI's repository, or the
`merges.txt` beside a model of transformers, which holds the same merges. A network with V entries knows the first
V - 514 of them: 256 bytes, the same at a word's end, and the tokens of start and end are not merges.

Letters: N texts, L tokens.
"""

import gzip
import html
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

from common.errors import CheckpointError
from common.hub import located

WANTED = "bpe_simple_vocab_16e6.txt.gz or merges.txt"
_END_OF_WORD = "</w>"
NUM_OTHERS = 2 * 256 + 2
NUM_PUBLISHED = 49408 - NUM_OTHERS  # of the file's merges those that the published models know
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)

Pair = tuple[str, str]


class ClipTokenizer:
    def __init__(self, merges: Sequence[Pair], length: int):
        self._length = length
        self._letters = _letters_of_bytes()
        letters = list(self._letters.values())
        symbols = [*letters, *(letter + _END_OF_WORD for letter in letters), *map("".join, merges)]
        self._ids = {symbol: number for number, symbol in enumerate(symbols)}
        self._start, self._end = len(symbols), len(symbols) + 1
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._parts = lru_cache(maxsize=65536)(self._merged)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int64 [N, L]: start, text, end, then zeros. A text that is too long is cut, and keeps its end."""
        rows = torch.zeros(len(texts), self._length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [self._start, *self._of(text)[: self._length - 2], self._end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _of(self, text: str) -> list[int]:
        words = _WORDS.findall(_cleaned(text))
        return [self._ids[part] for word in words for part in self._parts(word)]

    def _merged(self, word: str) -> tuple[str, ...]:
        """A word's symbols: of all neighbours, those whose merge comes first are merged, until there are none."""
        symbols = [self._letters[byte] for byte in word.encode()]
        symbols[-1] += _END_OF_WORD
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = _joined(symbols, best)
        return tuple(symbols)


def load_tokenizer(
    path: str | Path, vocabulary: int, length: int, *, setting: str, wanted: str = WANTED
) -> ClipTokenizer:
    """Of a file of merges, or an hf:// address of one, for a network of `vocabulary` entries.

    Raises CheckpointError; `setting` is the key that names the file, `wanted` what to point it at.
    """
    return ClipTokenizer(read_merges(path, vocabulary - NUM_OTHERS, setting, wanted), length)


def read_merges(path: str | Path, count: int | None, setting: str, wanted: str = WANTED) -> list[Pair]:
    """The first `count` merges of a file; None: as many as it has and the published models know."""
    path = located(path, setting)
    if not path.is_file():
        raise CheckpointError(f"There is no vocabulary of CLIP at {path}: point {setting} at {wanted}.")
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"The vocabulary {path} cannot be read ({error}): get it anew") from None
    lines = [line.split() for line in text.split("\n") if line and "#version" not in line]
    found = [(line[0], line[1]) for line in lines[: count or NUM_PUBLISHED] if len(line) == 2]
    if count is not None and len(found) < count:
        raise CheckpointError(
            f"The vocabulary {path} holds {len(found):,} merges and the network knows {count:,}: point {setting} "
            "at the vocabulary that it was trained with"
        )
    return found


def learned_merges(texts: Iterable[str], count: int) -> list[Pair]:
    """Up to `count` merges for these texts, each of the commonest neighbours in their words (arXiv 1508.07909).

    Of the equally common the first by spelling, so that the order of the texts does not matter.
    """
    spelt = Counter(word for text in texts for word in _WORDS.findall(_cleaned(text)))
    plain = ClipTokenizer((), 0)
    words = [(list(plain._merged(word)), number) for word, number in spelt.items()]
    merges: list[Pair] = []
    while len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for symbols, number in words:
            for pair in pairwise(symbols):
                pairs[pair] += number
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [(_joined(symbols, merges[-1]), number) for symbols, number in words]
    return merges


def _cleaned(text: str) -> str:
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


def _joined(symbols: list[str], pair: Pair) -> list[str]:
    joined: list[str] = []
    place = 0
    while place < len(symbols):
        is_pair = tuple(symbols[place : place + 2]) == pair
        joined.append("".join(pair) if is_pair else symbols[place])
        place += 2 if is_pair else 1
    return joined


def _letters_of_bytes() -> dict[int, str]:
    """A letter that can be seen for each byte: itself, or one above the bytes, in their order.

    Those that stand for themselves have the first ids.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
