"""Shards made by `prepare`, read by index: each read takes one row group of one file.

Files are opened when first needed and a few are kept open; so are the row groups read last, for readers
that go in order. Reads of different files run in parallel.

Letters: L valid caption tokens, D width of a caption feature.
"""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.sources.picture import read_picture
from actors.sources.split import Split, chosen_indices
from common.config.data import ParquetSource
from common.errors import BrokenImageError, DataError
from common.image_shards import Manifest, mapped, read_manifest
from common.paths import resolve
from common.protocols import ConditionFormat, SourceImage

OPEN_FILES = 64
KEPT_ROW_GROUPS = 16


class Parquet:
    """A source of labelled or captioned pictures, as the policy of the recipe needs them."""

    def __init__(self, spec: ParquetSource, conditions: ConditionFormat, image_size: int, split: Split):
        folder = resolve(spec.path)
        manifest = read_manifest(folder)
        for problem in (*_missing_shards(folder, manifest), *_misfits(folder, manifest, conditions, image_size)):
            raise DataError(problem)
        self._format = conditions
        self.class_names = manifest.classes
        self.manifest = manifest
        self.folder = folder
        self._paths = [folder / name for name in manifest.shard_rows]
        self._first_rows = np.cumsum([0, *manifest.shard_rows.values()])
        self._indices = chosen_indices(manifest.num_rows, spec, split)
        if not len(self._indices):
            key = "source.held_out_fraction above 0" if split == "held_out" else "it below 1"
            raise DataError(f"source.path {folder} has no images for the {split} split: set {key}")
        self._open = lru_cache(OPEN_FILES)(lambda shard: _ShardFile(self._paths[shard]))
        self._row_group = lru_cache(KEPT_ROW_GROUPS)(lambda shard, group: self._open(shard).read(group))

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> SourceImage:
        row = int(self._indices[index])
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        row -= int(self._first_rows[shard])
        group, row_of_group = divmod(row, self.manifest.rows_per_group)
        try:
            values = self._row_group(shard, group).slice(row_of_group, 1).to_pylist()[0]
            pixels = read_picture(values["image_id"], BytesIO(values["image"]), self.manifest.image_size)
            condition = self._format.of_shard_row(values)
        except BrokenImageError:
            raise
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:  # a damaged row
            raise BrokenImageError(f"{self._paths[shard].name}[{row}]", str(error)) from None
        return SourceImage(values["image_id"], pixels, condition, self._text_of(values))

    def _text_of(self, values: Mapping[str, Any]) -> str:
        if self.manifest.conditioning == "caption":
            return values["caption"] or ""
        label = values["label"]
        return self.class_names[label] if label < len(self.class_names) else ""


class _ShardFile:
    """One open file; its reader takes one request at a time."""

    def __init__(self, path: Path):
        self._file = pq.ParquetFile(mapped(path))
        self._lock = Lock()

    def read(self, group: int) -> pa.Table:
        with self._lock:
            return self._file.read_row_group(group, use_threads=False)


def _missing_shards(folder: Path, manifest: Manifest):
    for name in manifest.shard_rows:
        if not (folder / name).is_file():
            yield f"source.path {folder} lacks {name}, which its manifest names: copy it there, or prepare again"


def _misfits(folder: Path, manifest: Manifest, conditions: ConditionFormat, image_size: int):
    if manifest.image_size != image_size:
        yield (
            f"the shards at source.path {folder} hold images of {manifest.image_size} px and image_size is "
            f"{image_size}: prepare them with --image-size {image_size}, or set image_size={manifest.image_size}"
        )
    yield from conditions.shard_misfits(folder, manifest)
