"""Which columns of a table are read."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import types

from common.errors import DataError
from common.image_shards import Conditioning
from common.text import repaired
from deploy.prepare.options import PrepareOptions

IMAGE_NAMES = ("image", "img", "jpg", "png", "webp")
LABEL_NAMES = ("label", "labels", "cls")
CAPTION_NAMES = ("caption", "captions", "text", "txt", "prompt")


@dataclass(frozen=True)
class Columns:
    image: str
    condition: str
    conditioning: Conditioning  # what the condition is


def choose_columns(schema: pa.Schema, options: PrepareOptions, path: Path) -> Columns:
    """The named columns; else the only ones that their names and types allow. DataError says what to name."""
    there = f"{path} has the columns {', '.join(f'{field.name} ({field.type})' for field in schema)}"
    images = _named(schema, options.image_column, IMAGE_NAMES, _holds_images)
    labels = _named(schema, options.label_column, LABEL_NAMES, types.is_integer)
    captions = _named(schema, options.caption_column, CAPTION_NAMES, _holds_text)
    image = _only(images, there, "pictures", "--image-column")
    if options.wants is None and bool(labels) == bool(captions):
        raise DataError(f"{there}: name the one to condition on with --label-column or --caption-column")
    by_caption = options.wants == "caption" or (options.wants is None and bool(captions))
    if by_caption:
        condition = _only(captions, there, "captions", "--caption-column")
    else:
        condition = _only(labels, there, "class ids", "--label-column")
    columns = Columns(image, condition, "caption" if by_caption else "label")
    require_columns(schema, columns, path)
    return columns


def require_columns(schema: pa.Schema, columns: Columns, path: Path) -> None:
    """DataError unless `schema` has the columns, of types that can be used."""
    by_label = columns.conditioning == "label"
    needs = (
        (columns.image, _holds_images, "binary, or struct with the field bytes"),
        (columns.condition, *((types.is_integer, "whole numbers") if by_label else (_holds_text, "string"))),
    )
    for name, test, need in needs:
        if name not in schema.names:
            raise DataError(f"{path} has no column {name}, but {', '.join(schema.names)}")
        if (number := schema.names.count(name)) > 1:
            raise DataError(
                f"{path} has {number} columns of the name {name}: rename all but the one that is meant"
            )
        if not test(schema.field(name).type):
            raise DataError(f"column {name} of {path} is of type {schema.field(name).type}: {need} is needed")


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the classes, where the `datasets` package left them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(repaired(str(name)) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _named(schema: pa.Schema, given: str | None, names: Iterable[str], test: Callable[[Any], bool]) -> list[str]:
    """The column that was asked for, or those that their names and types allow."""
    if given:
        return [given]
    return [name for name in names if any(field.name == name and test(field.type) for field in schema)]


def _only(found: Sequence[str], there: str, what: str, option: str) -> str:
    """DataError where there is none, or which one is meant cannot be known."""
    if len(found) == 1:
        return found[0]
    which = f" ({' or '.join(found)})" if found else ""
    raise DataError(f"{there}: name the one with the {what}{which} with {option}")


def _holds_images(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_text(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind)
