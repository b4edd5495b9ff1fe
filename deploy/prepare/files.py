"""The files of an input: tars and tables below a folder, without what computers leave behind."""

import os
from collections.abc import Iterator
from pathlib import Path

from actors.sources.class_folders import is_left_behind
from common.errors import DataError
from common.text import shown_name


def files_below(root: Path, suffix: str) -> Iterator[Path]:
    """Files, and links that point nowhere, whose names end with `suffix`; not sorted."""
    for path in root.rglob(f"*{suffix}"):
        if not os.path.isdir(path) and not any(map(is_left_behind, path.relative_to(root).parts)):
            yield path


def files_of_split(root: Path, suffix: str, split: str | None) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the sorted files of the split (default: train, if there is one).

    `root` may be one file. DataError where the split has none.
    """
    if root.is_file():
        return root.parent, [root]
    paths = sorted(files_below(root, suffix))
    of_split = [path for path in paths if _is_of_split(path.relative_to(root), split or "train")]
    if split and not of_split:
        raise DataError(f"{root} has no {suffix} files of the split {split}: name another with --split")
    return root, of_split or paths


def names_and_sizes(root: Path, paths: list[Path]) -> list[tuple[str, int]]:
    """DataError, with the name, for what is not a regular file."""
    for path in paths:
        if not os.path.isfile(path):
            what = "a link that points nowhere" if path.is_symlink() else "not a regular file"
            raise DataError(f"{shown_name(path)} is {what}: fetch it again, or move it away")
    return [(str(path.relative_to(root)), path.stat().st_size) for path in paths]


def _is_of_split(path: Path, split: str) -> bool:
    """Hub layouts: train/…, data/train-00000-of-00005.parquet, train_0.parquet, train.parquet."""
    return split in path.parts[:-1] or path.stem == split or path.stem.startswith((f"{split}-", f"{split}_"))
