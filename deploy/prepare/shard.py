"""One shard: read its items, crop, encode, write. A pure function of its work, so that any worker may do it."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import lcm
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from actors.sources.picture import read_picture
from common.atomic import replacing
from common.errors import BrokenImageError
from common.image_shards import ROWS_PER_GROUP, Conditioning, ShardFacts, add_facts, shard_schema
from common.models.janus.prompts import loaded_tokenizer
from common.models.t5.captions import clean_caption
from common.models.text_encoders import loaded_encoder
from deploy.prepare.items import Item, Piece, Skipped

PNG_COMPRESSION = 6
LARGEST_LABEL = 2**63 - 1


@dataclass(frozen=True)
class TextSettings:
    encoder: str
    length: int  # tokens a caption is cut to
    batch_size: int


@dataclass(frozen=True)
class PromptSettings:
    tokenizer: str
    length: int  # tokens a prompt is cut to


@dataclass(frozen=True)
class ShardWork:
    path: Path
    pieces: tuple[Piece, ...]
    conditioning: Conditioning
    image_size: int
    min_side: int
    ground: str  # the colour under transparent pictures
    text: TextSettings | None
    prompts: PromptSettings | None = None


def make_shard(work: ShardWork) -> ShardFacts:
    """Write the shard under a temporary name and rename it; what is skipped stands in its footer."""
    schema = shard_schema(work.conditioning, work.text is not None, work.prompts is not None)
    rows_at_once = lcm(ROWS_PER_GROUP, work.text.batch_size if work.text else 1)
    skipped: list[tuple[str, str]] = []
    num_rows, max_label = 0, -1
    # Pictures are compressed already, and their smallest and largest are of no use to anyone.
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    # Opened here: pyarrow takes no path that is not UTF-8.
    with (
        replacing(work.path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, schema, **plain) as writer,
    ):
        for rows in _chunks(_rows(work, skipped), rows_at_once):
            if work.text:
                _add_features(rows, work.text)
            if work.prompts:
                _add_prompts(rows, work.prompts)
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=ROWS_PER_GROUP)
            num_rows += len(rows)
            max_label = max(max_label, *(row.get("label", -1) for row in rows))
        facts = ShardFacts(num_rows, tuple(skipped), max_label)
        add_facts(writer, facts)
    return facts


def _rows(work: ShardWork, skipped: list[tuple[str, str]]) -> Iterator[dict]:
    for piece in work.pieces:
        for item in piece.items():
            row = _row(item, work)
            if isinstance(row, Skipped):
                skipped.append((row.name, row.reason))
            else:
                yield row


def _row(item: Item | Skipped, work: ShardWork) -> dict | Skipped:
    if isinstance(item, Skipped):
        return item
    lacking = _lacking(item, work.conditioning)
    if item.image is None or lacking:
        return Skipped(item.name, lacking or "it has no picture")
    try:
        pixels = read_picture(item.name, BytesIO(item.image), work.image_size, work.min_side, work.ground)
    except BrokenImageError as error:
        return Skipped(item.name, error.reason)
    png = BytesIO()
    Image.fromarray(pixels).save(png, "png", compress_level=PNG_COMPRESSION)
    condition = item.label if work.conditioning == "label" else item.caption
    return {"image_id": item.name, "image": png.getvalue(), work.conditioning: condition}


def _lacking(item: Item, conditioning: Conditioning) -> str | None:
    if conditioning == "caption":
        return None if item.caption and clean_caption(item.caption) else "it has no caption"
    if item.label is None:
        return "it has no class"
    if item.label > LARGEST_LABEL:
        return f"its class id is {item.label}, more than 64 bits hold"
    return None if item.label >= 0 else f"its class id is {item.label}"


def _chunks(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    chunk: list[dict] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _add_features(rows: list[dict], text: TextSettings) -> None:
    encoder = loaded_encoder(text.encoder, text.length)  # once, because a worker makes many shards
    for start in range(0, len(rows), text.batch_size):
        batch = rows[start : start + text.batch_size]
        for row, features_LD in zip(batch, encoder.features([row["caption"] for row in batch]), strict=True):
            row["caption_tokens"] = len(features_LD)
            row["caption_features"] = features_LD.tobytes()


def _add_prompts(rows: list[dict], prompts: PromptSettings) -> None:
    tokenizer = loaded_tokenizer(prompts.tokenizer, prompts.length)
    for row in rows:
        row["prompt_ids"], row["null_prompt_ids"] = tokenizer.of_caption(row["caption"]).tolist()
