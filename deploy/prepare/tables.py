"""Parquet files, and data sets saved by the `datasets` package (`save_to_disk`: Arrow streams), by pyarrow alone.

An image column is struct{bytes, path}, as on the Hugging Face hub, or plain bytes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.sources.picture import require_file
from common.errors import DataError
from common.image_shards import mapped
from common.text import decoded, parsed_json, shown_name
from deploy.prepare.columns import Columns, choose_columns, class_names, require_columns
from deploy.prepare.files import files_of_split, names_and_sizes
from deploy.prepare.items import Found, Item, Skipped, listing_digest
from deploy.prepare.options import PrepareOptions

ROWS_AT_ONCE = 64


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
            return pq.read_metadata(mapped(self.path)).num_rows
        return sum(batch.num_rows for _, batch in _stream(self.path))

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        is_parquet = self.path.suffix == ".parquet"
        batches = _parquet_batches(self.path, self._wanted, start, stop) if is_parquet else _stream(self.path)
        for first, batch in batches:
            rows = range(max(start, first), min(stop, first + len(batch)))
            if isinstance(batch, _Damaged):
                yield from (Skipped(self._name(row), batch.reason) for row in rows)
            else:
                columns = [_plain(batch.column(name)) for name in self._wanted]
                for row in rows:
                    yield self._item(row, *(column[row - first].as_py() for column in columns))
            if first + len(batch) >= stop:
                return

    @property
    def _wanted(self) -> list[str]:
        return [self.columns.image, self.columns.condition]

    def _name(self, row: int) -> str:
        return f"{shown_name(self.name)}[{row}]"

    def _item(self, row: int, stored: Any, condition: Any) -> Item | Skipped:
        image = stored
        if isinstance(stored, dict):
            image = stored["bytes"]
            if image is None and stored.get("path"):
                path = os.fsdecode(stored["path"])
                try:
                    require_file(self.path.parent / path)
                    image = (self.path.parent / path).read_bytes()
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or str(error)
                    return Skipped(self._name(row), f"{shown_name(path)} cannot be read: {reason}")
        if isinstance(condition, bytes):
            condition = decoded(condition)
        return Item(self._name(row), image, **{self.columns.conditioning: condition})


def read_schema(path: Path) -> pa.Schema:
    try:
        with mapped(path) as file:
            schema = pq.read_schema(file) if path.suffix == ".parquet" else pa.ipc.open_stream(file).schema
        assert schema.names is not None  # read here: a name that is not UTF-8 raises
        return schema
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


@dataclass(frozen=True)
class _Damaged:
    """Rows in the place of a batch that cannot be read."""

    num_rows: int
    reason: str

    def __len__(self) -> int:
        return self.num_rows


Batches = Iterator[tuple[int, pa.RecordBatch | _Damaged]]  # the first row, and the rows


def _plain(column: pa.Array) -> pa.Array:
    """Strings as bytes: they need not be UTF-8."""
    kind = column.type
    if pa.types.is_struct(kind):
        names = [name for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
        return pa.StructArray.from_arrays([_plain(pc.struct_field(column, name)) for name in names], names)
    if pa.types.is_string(kind):
        return column.cast(pa.binary())
    return column.cast(pa.large_binary()) if pa.types.is_large_string(kind) else column


def _parquet_batches(path: Path, columns: list[str], start: int, stop: int) -> Batches:
    """Rows in files are compressed by groups: a damaged group costs its own rows alone."""
    with pq.ParquetFile(mapped(path)) as file:
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if first < stop and end > start:
                yield from _group_batches(file, columns, group, first, end)
            first = end


def _group_batches(file: pq.ParquetFile, columns: list[str], group: int, first: int, end: int) -> Batches:
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False):
            yield first, batch
            first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        yield first, _Damaged(end - first, f"its rows cannot be read: {error}")


def _stream(path: Path) -> Batches:
    """All batches of an Arrow stream; the file is mapped, so those not looked into cost nothing."""
    with mapped(path) as file:
        first = 0
        try:
            for batch in pa.ipc.open_stream(file):
                yield first, batch
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{shown_name(path)} cannot be read ({error}): fetch it again, or move it away")


def find_parquet(options: PrepareOptions) -> Found:
    return _found(*files_of_split(options.input, ".parquet", options.split), options)


def find_saved(options: PrepareOptions) -> Found:
    root = folder = options.input
    if (root / "dataset_dict.json").is_file():
        splits = _described(root / "dataset_dict.json", "splits", list)
        split = options.split or "train"
        if split not in splits:
            raise DataError(f"{root} has no split {split}: name one of {', '.join(splits)} with --split")
        folder = root / split
    state = folder / "state.json"
    if _described(state, "_indices_data_files", list | None):
        raise DataError(f"{folder} was saved with an index over its rows: save it again after flatten_indices()")
    files = _described(state, "_data_files", list)
    names = [str(file.get("filename") if isinstance(file, dict) else file) for file in files]
    return _found(root, [folder / name for name in names], options)


def _described(path: Path, key: str, kind: Any) -> Any:
    """An entry of the JSON files that `save_to_disk` leaves. DataError."""
    try:
        value = parsed_json(path.read_bytes()).get(key)
        if isinstance(value, kind):
            return value
        problem = f"its {key} is {value!r:.40}"
    except (OSError, ValueError, AttributeError) as error:
        problem = str(error)
    raise DataError(f"{shown_name(path)} does not describe a saved data set ({problem}): save it again")


def _found(root: Path, paths: list[Path], options: PrepareOptions) -> Found:
    if not paths:
        raise DataError(f"{root} holds no table files")
    files = names_and_sizes(root, paths)
    schema = read_schema(paths[0])
    columns = choose_columns(schema, options, paths[0])
    return Found(
        columns.conditioning,
        [TablePart(root, name, columns) for name, _ in files],
        listing_digest(files),
        {"image": columns.image, columns.conditioning: columns.condition},
        class_names(schema, columns.condition),
    )
