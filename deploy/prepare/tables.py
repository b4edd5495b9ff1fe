"""Parquet files, and data sets saved by the `datasets` package (`save_to_disk`: Arrow streams), by pyarrow alone.

An image column is struct{bytes, path}, as on the Hugging Face hub, or plain bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import DataError
from deploy.prepare.columns import Columns, choose_columns, class_names, require_columns
from deploy.prepare.items import Found, Item, Skipped, listing_digest
from deploy.prepare.options import PrepareOptions

ROWS_AT_ONCE = 64
Batches = Iterator[tuple[int, pa.RecordBatch]]  # the first row, and the rows


@dataclass(frozen=True)
class TablePart:
    """One file."""

    root: Path
    name: str  # relative to the root
    columns: Columns

    @property
    def path(self) -> Path:
        return self.root / self.name

    def count(self) -> int:
        require_columns(read_schema(self.path), self.columns, self.path)
        if self.path.suffix == ".parquet":
            return pq.read_metadata(self.path).num_rows
        return sum(batch.num_rows for _, batch in _stream_batches(self.path))

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        wanted = [self.columns.image, self.columns.condition]
        is_parquet = self.path.suffix == ".parquet"
        batches = _parquet_batches(self.path, wanted, start, stop) if is_parquet else _stream_batches(self.path)
        for first, batch in batches:
            rows = range(max(start, first), min(stop, first + batch.num_rows))
            images, conditions = (batch.column(name) for name in wanted)
            for row in rows:
                yield self._item(row, images[row - first].as_py(), conditions[row - first].as_py())
            if first + batch.num_rows >= stop:
                return

    def _item(self, row: int, stored: Any, condition: Any) -> Item | Skipped:
        name = f"{self.name}[{row}]"
        image = stored
        if isinstance(stored, dict):
            image = stored["bytes"]
            if image is None and stored.get("path"):
                try:
                    image = (self.path.parent / stored["path"]).read_bytes()
                except OSError as error:
                    return Skipped(name, f"{stored['path']} cannot be read: {error.strerror}")
        return Item(name, image, **{self.columns.conditioning: condition})


def read_schema(path: Path) -> pa.Schema:
    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).schema
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _parquet_batches(path: Path, columns: list[str], start: int, stop: int) -> Batches:
    with pq.ParquetFile(path, memory_map=True) as file:
        groups: list[int] = []
        first_row = row = 0
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            if row < stop and end > start:
                first_row = first_row if groups else row
                groups.append(group)
            row = end
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns, use_threads=False):
                yield first_row, batch
                first_row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from None


def _stream_batches(path: Path) -> Batches:
    """All batches of an Arrow stream; the file is mapped, so those not looked into cost nothing."""
    with pa.memory_map(str(path)) as file:
        first = 0
        try:
            for batch in pa.ipc.open_stream(file):
                yield first, batch
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}): fetch it again, or move it away")


def find_parquet(options: PrepareOptions) -> Found:
    if options.input.is_file():
        return _found(options.input.parent, [options.input], options)
    paths = sorted(options.input.rglob("*.parquet"))
    split = options.split or "train"
    of_split = [path for path in paths if _is_of_split(path.relative_to(options.input), split)]
    if options.split and not of_split:
        raise DataError(f"{options.input} has no Parquet files of the split {split}: name another with --split")
    return _found(options.input, of_split or paths, options)


def _is_of_split(path: Path, split: str) -> bool:
    """Hub layouts: train/…, data/train-00000-of-00005.parquet, train_0.parquet, train.parquet."""
    return split in path.parts[:-1] or path.stem == split or path.stem.startswith((f"{split}-", f"{split}_"))


def find_saved(options: PrepareOptions) -> Found:
    root = folder = options.input
    if (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_text())["splits"]
        split = options.split or "train"
        if split not in splits:
            raise DataError(f"{root} has no split {split}: name one of {', '.join(splits)} with --split")
        folder = root / split
    state = json.loads((folder / "state.json").read_text())
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} was saved with an index over its rows: save it again after flatten_indices()")
    return _found(root, [folder / file["filename"] for file in state["_data_files"]], options)


def _found(root: Path, paths: list[Path], options: PrepareOptions) -> Found:
    if not paths:
        raise DataError(f"{root} holds no table files")
    schema = read_schema(paths[0])
    columns = choose_columns(schema, options, paths[0])
    names = [str(path.relative_to(root)) for path in paths]
    return Found(
        columns.conditioning,
        [TablePart(root, name, columns) for name in names],
        listing_digest((name, path.stat().st_size) for name, path in zip(names, paths, strict=True)),
        {"image": columns.image, columns.conditioning: columns.condition},
        class_names(schema, columns.condition),
    )
