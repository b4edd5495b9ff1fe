"""The Parquet shards that `prepare` writes and the `parquet` source reads.

A folder of shards holds shard-00000.parquet …, skipped.jsonl (one line per skipped item, with the reason) and,
once the folder is complete, manifest.json. A row is one picture:

    image_id          string  a readable name that leads to the original
    image             binary  PNG, RGB, image_size x image_size
    label             int64   class-conditional shards: the class id
    caption           string  text-conditional shards: the original caption
    caption_tokens    int32   with text features: the number of tokens, L; it defines the mask
    caption_features  binary  with text features: float16, little-endian, [L, D] in row-major order
    prompt_ids        list    with prompts: int32 token ids of the whole prompt
    null_prompt_ids   list    with prompts: those of its unconditional twin, as many
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from common.atomic import write_json
from common.errors import DataError
from common.text import parsed_json, shown_name

FORMAT = 1
MANIFEST = "manifest.json"
SKIPPED = "skipped.jsonl"
ROWS_PER_GROUP = 8  # a row group is the smallest unit of reading: 2 to 4 MB at 384 pixels
FEATURE_TYPE = "<f2"

Conditioning = Literal["label", "caption"]

_FACTS = b"vapi.shard"


@dataclass(frozen=True)
class ShardFacts:
    """Facts in a shard's footer, so that its rows and skipped items are both complete or both absent."""

    num_rows: int
    skipped: tuple[tuple[str, str], ...]  # name and reason of each skipped item
    max_label: int = -1  # the largest class id; -1 without labels


@dataclass(frozen=True)
class Captions:
    """The text features of a folder of shards."""

    encoder: str  # path or hub name
    dim: int  # D
    length: int  # the largest L, to which longer captions were cut


@dataclass(frozen=True)
class Prompts:
    """The prompts of a folder of shards."""

    tokenizer: str  # path or hub address
    length: int  # the largest number of tokens, to which longer prompts were cut
    vocabulary_size: int


@dataclass(frozen=True)
class Manifest:
    format: int
    kind: str  # folder, tars, parquet or saved
    conditioning: Conditioning
    image_size: int
    num_rows: int
    num_skipped: int
    columns: dict[str, str]  # name: Arrow type
    rows_per_group: int
    classes: tuple[str, ...]  # names by class id, if the input has them
    max_label: int
    captions: Captions | None
    input: str
    input_items: int
    input_sha256: str  # of the names and sizes of the input's files
    shard_rows: dict[str, int]  # file name: rows, in order
    prompts: Prompts | None = None

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, asdict(self))


def read_manifest(folder: Path) -> Manifest:
    """Raises DataError if `folder` is not a complete folder of shards."""
    path = folder / MANIFEST
    try:
        tree = parsed_json(path.read_bytes())
        if tree["format"] == FORMAT:
            captions, prompts = tree["captions"], tree.get("prompts")
            parsed = {
                "captions": captions and Captions(**captions),
                "prompts": prompts and Prompts(**prompts),
                "classes": tuple(tree["classes"]),
            }
            return Manifest(**tree | parsed)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"source.path {folder} has no {MANIFEST}: make it with `python -m deploy prepare INPUT {folder}`, and "
            "call that again where it was interrupted"
        ) from None
    except OSError as error:
        raise DataError(f"{shown_name(path)} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown_name(path)} is no manifest of `prepare` ({error}): prepare anew") from None
    raise DataError(f"{folder} holds shards of format {tree['format']}, this code reads {FORMAT}: prepare anew")


def read_skipped(folder: Path) -> list[tuple[str, str]]:
    """Name and reason of each item that `prepare` left out; none where the list is not there."""
    try:
        lines = [parsed_json(line) for line in (folder / SKIPPED).read_bytes().splitlines()]
        return [(line["name"], line["reason"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def mapped(path: Path) -> pa.MemoryMappedFile:
    """The file, opened for pyarrow, whatever the bytes of its name are."""
    return pa.memory_map(os.fsencode(path))


def shard_schema(conditioning: Conditioning, with_features: bool = False, with_prompts: bool = False) -> pa.Schema:
    fields = [("image_id", pa.string()), ("image", pa.binary())]
    fields += [("label", pa.int64())] if conditioning == "label" else [("caption", pa.string())]
    if with_features:
        fields += [("caption_tokens", pa.int32()), ("caption_features", pa.binary())]
    if with_prompts:
        fields += [("prompt_ids", pa.list_(pa.int32())), ("null_prompt_ids", pa.list_(pa.int32()))]
    return pa.schema(fields)


def add_facts(writer: pq.ParquetWriter, facts: ShardFacts) -> None:
    """Put `facts` into the footer that `writer` writes on closing."""
    writer.add_key_value_metadata({_FACTS: json.dumps(asdict(facts))})


def read_facts(path: Path) -> ShardFacts | None:
    """The facts of the shard at `path`; None if there is no complete shard."""
    try:
        tree = json.loads(pq.read_metadata(mapped(path)).metadata[_FACTS])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError):
        return None
    return ShardFacts(
        tree["num_rows"], tuple((name, reason) for name, reason in tree["skipped"]), tree["max_label"]
    )
