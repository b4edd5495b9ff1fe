"""Finds what kind of input there is, and numbers its items."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from deploy.prepare import folder, tables, tars
from deploy.prepare.files import files_below
from deploy.prepare.items import Found, Piece, count, pieces
from deploy.prepare.options import PrepareOptions
from deploy.prepare.workers import Workers

FINDERS: dict[str, Callable[[PrepareOptions], Found]] = {
    "folder": folder.find,
    "tars": tars.find,
    "parquet": tables.find_parquet,
    "saved": tables.find_saved,
}


COMPRESSED = {
    ".gz": "gunzip",
    ".tgz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
    ".zip": "unzip, into a folder",
}


@dataclass(frozen=True)
class Listing:
    """All items of the input, in an order that depends on the input alone."""

    kind: str
    found: Found
    counts: tuple[int, ...]  # items of each part

    def __len__(self) -> int:
        return sum(self.counts)

    def pieces(self, start: int, stop: int) -> tuple[Piece, ...]:
        return pieces(self.found.parts, self.counts, start, stop)


def list_input(options: PrepareOptions, workers: Workers) -> Listing:
    """DataError where there is nothing to read."""
    kind = options.kind or detect_kind(options.input)
    found = FINDERS[kind](options)
    counts = [0] * len(found.parts)
    if kind == "folder":  # listed already
        counts = [part.count() for part in found.parts]
    else:
        for index, num_items in workers.run(count, found.parts):
            counts[index] = num_items
    if not sum(counts):
        raise DataError(f"{options.input} holds no pictures (looked for as {kind}; --kind names another kind)")
    return Listing(kind, found, tuple(counts))


def detect_kind(path: Path) -> str:
    """What `path` holds. Tars come before Parquet: downloaded tars often lie beside Parquet files of links."""
    if path.is_file():
        kind = {".tar": "tars", ".parquet": "parquet"}.get(path.suffix)
        if kind is None:
            if path.suffix in COMPRESSED:
                raise DataError(f"{path} is compressed: unpack it first ({COMPRESSED[path.suffix]})")
            raise DataError(f"{path} is neither a .tar nor a .parquet file: name one, or a folder")
        return kind
    if not path.is_dir():
        raise DataError(f"there is nothing at {path}: name a folder of pictures, tars or Parquet files")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return "saved"
    for kind, suffix in (("tars", ".tar"), ("parquet", ".parquet")):
        if next(files_below(path, suffix), None):
            return kind
    return "folder"
