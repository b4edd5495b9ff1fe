"""What the bytes of the shards depend on, kept beside them: a call with other settings is refused."""

import json
from pathlib import Path
from typing import Any

from common.atomic import write_json
from common.errors import DataError
from common.image_shards import FORMAT, ROWS_PER_GROUP
from deploy.prepare.listing import Listing
from deploy.prepare.options import PrepareOptions

SETTINGS = "settings.json"


def settings_of(options: PrepareOptions, listing: Listing) -> dict[str, Any]:
    """By name: the option where it is one."""
    text = {
        "--text-encoder": options.text_encoder,
        "--text-batch-size": options.text_batch_size,
        "--caption-length": options.caption_length,
    }
    return {
        "format": FORMAT,
        "rows per group": ROWS_PER_GROUP,
        "--kind": listing.kind,
        "conditioning": listing.found.conditioning,
        "columns": listing.found.columns,
        "--image-size": options.image_size,
        "--min-side": options.min_side,
        "--shard-size": options.shard_size,
        **(text if options.text_encoder else {"--text-encoder": None}),
        "items of the input": len(listing),
        "sha256 of the input's listing": listing.found.sha256,
    }


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Make `output` the folder of these settings. DataError where it is another's."""
    path = output / SETTINGS
    if not path.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise DataError(f"{output} is not empty and holds no shards of `prepare`: name a new folder")
        write_json(path, settings)
        return
    former = json.loads(path.read_text())
    for name in (*settings, *former):
        before, now = former.get(name), settings.get(name)
        if before != now:
            raise DataError(
                f"{output} holds shards made with {name} {_said(before)}, and this call has {_said(now)}: repeat "
                "the call that began it, name another OUTPUT, or remove that folder"
            )


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
