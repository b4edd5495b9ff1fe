"""Pictures in files: a folder of PNGs or one `.npz`. Read in batches, because there may be gigabytes.

Letters: N pictures, n pictures in a batch, H, W, C pixels and channels.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from actors.sources.class_folders import is_left_behind
from actors.sources.picture import open_picture
from common.errors import BrokenImageError, DataError
from common.text import shown_name

BATCH = 250
PICTURES, LABELS = "arr_0", "labels"  # in an .npz
_DAMAGES = (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)
_GRID = "grid.png"  # the overview that `sample` writes beside the pictures


@dataclass(frozen=True)
class PictureFiles:
    """The pictures at `path`."""

    path: Path
    num_pictures: int
    label_N: np.ndarray | None  # int64; the requested classes, if the file has them

    def batches(self) -> Iterator[np.ndarray]:
        """uint8 [n, H, W, 3], in the order of the file names or of the array."""
        return _npz_batches(self.path) if self.path.is_file() else _folder_batches(self.path)

    def first(self, count: int) -> np.ndarray:
        """The first pictures, uint8 [n, H, W, 3]; at most BATCH."""
        return next(self.batches())[:count]


def find_pictures(path: Path) -> PictureFiles:
    """A folder of PNGs (subfolders included) or an `.npz` with `arr_0`. Raises DataError."""
    if path.is_dir():
        num_pictures = len(_names(path))
        if not num_pictures:
            raise DataError(f"{path} holds no PNG files: name a folder or an .npz that `sample` wrote")
        return PictureFiles(path, num_pictures, None)
    with open_npz(path) as archive:
        shape = _pictures_shape(archive, path)
        label_N = read_array(archive, LABELS) if has_array(archive, LABELS) else None
    if label_N is not None and label_N.shape != shape[:1]:
        raise DataError(f"{path} holds {shape[0]} pictures and labels of shape {label_N.shape}: draw it again")
    return PictureFiles(path, shape[0], label_N)


def is_overview(path: Path) -> bool:
    """Whether it is the grid that `sample` writes beside the pictures."""
    return path.name == _GRID


def open_npz(path: Path) -> zipfile.ZipFile:
    """Raises DataError if `path` is not an `.npz`."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a readable .npz file: {error}") from None


def has_array(archive: zipfile.ZipFile, name: str) -> bool:
    return f"{name}.npy" in archive.namelist()


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """DataError where the member is damaged, or no plain array."""
    try:
        with archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member)
    except _DAMAGES as error:
        raise DataError(f"{name} of {archive.filename} cannot be read ({error}): make the file anew") from None


def _pictures_shape(archive: zipfile.ZipFile, path: Path) -> tuple[int, ...]:
    if not has_array(archive, PICTURES):
        raise DataError(f"{path} holds {', '.join(archive.namelist())} and no {PICTURES}.npy: it has no pictures")
    try:
        with archive.open(f"{PICTURES}.npy") as member:
            shape, is_fortran, dtype = _header(member)
    except _DAMAGES as error:
        raise DataError(f"{PICTURES} of {path} cannot be read ({error}): make the file anew") from None
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or is_fortran or not shape[0]:
        raise DataError(f"{PICTURES} of {path} is {dtype} {shape}: pictures are uint8 [N, H, W, 3]")
    return shape


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _npz_batches(path: Path) -> Iterator[np.ndarray]:
    with open_npz(path) as archive:
        N, *size = _pictures_shape(archive, path)
        with archive.open(f"{PICTURES}.npy") as member:
            _header(member)
            for start in range(0, N, BATCH):
                n = min(BATCH, N - start)
                try:
                    pixels = np.frombuffer(member.read(n * prod(size)), np.uint8).reshape(n, *size)
                except _DAMAGES as error:
                    raise DataError(
                        f"{PICTURES} of {path} is cut short or damaged ({error}): make it anew"
                    ) from None
                yield pixels


def _names(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*.png") if not is_overview(path))
    return sorted(path for path in found if not any(map(is_left_behind, path.relative_to(folder).parts)))


def _folder_batches(folder: Path) -> Iterator[np.ndarray]:
    names = _names(folder)
    size: tuple[int, int] | None = None
    for start in range(0, len(names), BATCH):
        batch = []
        for name in names[start : start + BATCH]:
            picture = _read(name)
            size = size or picture.size
            if picture.size != size:
                raise DataError(
                    f"{name} is {picture.size} pixels and {names[0]} is {size}: score one size at a time"
                )
            batch.append(np.asarray(picture))
        yield np.stack(batch)


def _read(name: Path) -> Image.Image:
    try:
        return open_picture(shown_name(name), name)
    except BrokenImageError as error:
        raise DataError(f"{error}: draw it again, or move it away") from None
