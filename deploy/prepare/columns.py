"""Which columns of a table are read."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
    image = options.image_column or _first(schema, IMAGE_NAMES, _holds_images)
    label = options.label_column or _first(schema, LABEL_NAMES, types.is_integer)
    caption = options.caption_column or _first(schema, CAPTION_NAMES, _holds_text)
    if image is None:
        raise DataError(f"{there}: name the one with the pictures with --image-column")
    if options.wants is None and (label is None) == (caption is None):
        raise DataError(f"{there}: name the one to condition on with --label-column or --caption-column")
    by_caption = options.wants == "caption" or (options.wants is None and caption is not None)
    condition = caption if by_caption else label
    if condition is None:
        raise DataError(f"{there}: name the one with the captions with --caption-column")
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
        if not test(schema.field(name).type):
            raise DataError(f"column {name} of {path} is of type {schema.field(name).type}: {need} is needed")


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the classes, where the `datasets` package left them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(repaired(str(name)) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _first(schema: pa.Schema, names: Iterable[str], test) -> str | None:
    return next((name for name in names if name in schema.names and test(schema.field(name).type)), None)


def _holds_images(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_text(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind)
