"""What the bytes of the shards depend on, kept beside them: a call with other settings is refused."""

from typing import Any

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
