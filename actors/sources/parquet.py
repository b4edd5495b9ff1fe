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
from common.image_shards import FEATURE_TYPE, Manifest, read_manifest
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.paths import resolve
from common.protocols import SourceImage

OPEN_FILES = 64
KEPT_ROW_GROUPS = 16


class Parquet:
    """A source of labelled or captioned pictures, as the policy of the recipe needs them."""

    def __init__(self, spec: ParquetSource, policy: LlamaGenPolicySpec, image_size: int, split: Split):
        folder = resolve(spec.path)
        manifest = read_manifest(folder)
        for problem in (*_missing_shards(folder, manifest), *_misfits(folder, manifest, policy, image_size)):
            raise DataError(problem)
        self._policy = policy
        self._manifest = manifest
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
        group, row_of_group = divmod(row, self._manifest.rows_per_group)
        try:
            values = self._row_group(shard, group).slice(row_of_group, 1).to_pylist()[0]
        except (OSError, pa.ArrowException) as error:
            raise BrokenImageError(f"{self._paths[shard].name}[{row}]", str(error)) from None
        size = self._manifest.image_size
        pixels = read_picture(values["image_id"], BytesIO(values["image"]), size)
        return SourceImage(values["image_id"], pixels, self._condition(values))

    def _condition(self, values: Mapping[str, Any]) -> dict[str, np.ndarray | np.generic]:
        if self._policy.conditioning == "class":
            return {"label": np.int64(values["label"])}
        stored_LD = np.frombuffer(values["caption_features"], FEATURE_TYPE)
        return padded_left(stored_LD.reshape(values["caption_tokens"], -1), self._policy.caption_length)


def padded_left(features_LD: np.ndarray, length: int) -> dict[str, np.ndarray | np.generic]:
    """`caption_features` [length, D], zeros first, and `caption_mask` uint8 [length], 1 where valid."""
    missing = length - len(features_LD)
    return {
        "caption_features": np.pad(features_LD, ((missing, 0), (0, 0))),
        "caption_mask": (np.arange(length) >= missing).astype(np.uint8),
    }


class _ShardFile:
    """One open file; its reader takes one request at a time."""

    def __init__(self, path: Path):
        self._file = pq.ParquetFile(path, memory_map=True)
        self._lock = Lock()

    def read(self, group: int) -> pa.Table:
        with self._lock:
            return self._file.read_row_group(group, use_threads=False)


def _missing_shards(folder: Path, manifest: Manifest):
    for name in manifest.shard_rows:
        if not (folder / name).is_file():
            yield f"source.path {folder} lacks {name}, which its manifest names: copy it there, or prepare again"


def _misfits(folder: Path, manifest: Manifest, policy: LlamaGenPolicySpec, image_size: int):
    if manifest.image_size != image_size:
        yield (
            f"the shards at source.path {folder} hold images of {manifest.image_size} px and image_size is "
            f"{image_size}: prepare them with --image-size {image_size}, or set image_size={manifest.image_size}"
        )
    yield from (_label_misfits if policy.conditioning == "class" else _caption_misfits)(folder, manifest, policy)


def _label_misfits(folder: Path, manifest: Manifest, policy: LlamaGenPolicySpec):
    if manifest.conditioning != "label":
        yield f"policy.conditioning is class, but the shards at {folder} hold captions: name shards with labels"
    if manifest.max_label >= policy.num_classes:
        yield (
            f"the shards at {folder} hold class id {manifest.max_label} and policy.num_classes is "
            f"{policy.num_classes}: class ids must be below it"
        )


def _caption_misfits(folder: Path, manifest: Manifest, policy: LlamaGenPolicySpec):
    captions = manifest.captions
    if captions is None:
        yield (
            f"policy.conditioning is text, but the shards at {folder} hold no text features: prepare captioned "
            "pictures with --text-encoder"
        )
        return
    if captions.dim != policy.caption_dim:
        yield (
            f"the text features at {folder} are {captions.dim} wide ({captions.encoder}) and policy.caption_dim "
            f"is {policy.caption_dim}: prepare them with the encoder that the policy was trained with"
        )
    if captions.length > policy.caption_length:
        yield (
            f"the captions at {folder} have up to {captions.length} tokens and policy.caption_length is "
            f"{policy.caption_length}: prepare them with --caption-length {policy.caption_length}"
        )
