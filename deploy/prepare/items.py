"""What the readers of all kinds of input hand over."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.image_shards import Conditioning


@dataclass(frozen=True)
class Item:
    """One picture as it was found. A missing picture, label or caption is for the shard maker to count."""

    name: str  # unique in the input; a person can find the picture by it
    image: bytes | None  # the encoded picture
    label: int | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Skipped:
    """An item left out, and why."""

    name: str
    reason: str


class Part(Protocol):
    """A piece of the input that can be read from any of its items on; small when pickled."""

    def count(self) -> int:
        """Its items, broken ones included. DataError where it cannot be read at all."""

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        """Items start … stop - 1, in a fixed order."""


@dataclass(frozen=True)
class Found:
    """What a look at the input gives, before its items are counted."""

    conditioning: Conditioning
    parts: Sequence[Part]
    sha256: str  # of the names and sizes of its files, in order
    columns: dict[str, str]  # what is read as image and as label or caption
    classes: tuple[str, ...] = ()  # names by class id, where the input has them
    notes: tuple[str, ...] = ()  # what a user would want to know of the listing


@dataclass(frozen=True)
class Piece:
    """Items start … stop - 1 of a part."""

    part: Part
    start: int
    stop: int

    def items(self) -> Iterator[Item | Skipped]:
        return self.part.read(self.start, self.stop)


def count(part: Part) -> int:
    """A work for workers."""
    return part.count()


def pieces(parts: Sequence[Part], counts: Sequence[int], start: int, stop: int) -> tuple[Piece, ...]:
    """Items start … stop - 1 of all parts together."""
    ends = np.cumsum(counts)
    found = []
    for index in range(int(np.searchsorted(ends, start, side="right")), len(parts)):
        first = int(ends[index]) - counts[index]
        if first >= stop:
            break
        if counts[index]:
            found.append(Piece(parts[index], max(start - first, 0), min(stop - first, counts[index])))
    return tuple(found)


def listing_digest(files: Iterable[tuple[str, int]]) -> str:
    """SHA-256 of the names and sizes of files."""
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
