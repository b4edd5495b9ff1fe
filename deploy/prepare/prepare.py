"""`prepare`: pictures of one's own, as Parquet shards that reward actors read by index.

It lists the input, makes the shards that are not there yet, and sums up.
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from common.atomic import replacing
from common.errors import DataError
from common.image_shards import (
    FORMAT,
    ROWS_PER_GROUP,
    SKIPPED,
    Captions,
    Manifest,
    Prompts,
    ShardFacts,
    read_facts,
    shard_schema,
)
from common.models.janus.prompts import loaded_tokenizer
from common.models.text_encoders import encoder_width
from common.text import shown_name
from deploy.prepare.listing import Listing, list_input
from deploy.prepare.options import WHITE, PrepareOptions
from deploy.prepare.shard import PromptSettings, ShardWork, TextSettings, make_shard
from deploy.prepare.workers import Workers
from deploy.runs.claimed_folder import claim
from deploy.runs.progress_line import ProgressLine, shards_text
from deploy.runs.run_lock import lock_output

SETTINGS = "settings.json"


def prepare(
    options: PrepareOptions,
    make: Callable[[ShardWork], ShardFacts] = make_shard,
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Fill `options.output`, going on where an earlier call was interrupted; `make` makes one shard.

    `say` is told what a look at the input shows, before the first shard.

    Shard k holds items k · shard_size … of the input's listing, without those skipped: which call or worker
    makes it does not matter.
    """
    captions, prompts = _captions(options), _prompts(options)
    with (
        lock_output(options.output, "prepare", "OUTPUT"),
        Workers(options.workers, options.gpus_per_worker) as workers,
    ):
        listing = list_input(options, workers)
        if (captions or prompts) and listing.found.conditioning != "caption":
            option = "--text-encoder" if captions else "--prompts"
            raise DataError(f"{options.input} has no captions: {option} has nothing to read")
        for note in listing.found.notes:
            say(note)
        settings = _settings(options, listing)
        claim(options.output, settings, file=SETTINGS, argument="OUTPUT", things="shards", command="prepare")
        for left_over in options.output.glob(".*.tmp"):  # of a call that was killed
            left_over.unlink()
        works = _works(options, listing)
        names = [work.path.name for work in works]
        facts = [read_facts(work.path) for work in works]
        missing = [index for index, fact in enumerate(facts) if fact is None]
        made: list[ShardFacts] = []
        with closing(ProgressLine()) as line:
            for place, shard in workers.run(make, [works[index] for index in missing]):
                facts[missing[place]] = shard
                made.append(shard)
                line.show(shards_text(made, len(missing) - len(made), len(works), line.seconds))
        return _sum_up(options, listing, captions, prompts, dict(zip(names, filter(None, facts), strict=True)))


def _captions(options: PrepareOptions) -> Captions | None:
    """Known before the first shard: whether the encoder can be had, and how wide its features are."""
    if options.text_encoder is None:
        return None
    return Captions(options.text_encoder, encoder_width(options.text_encoder), options.caption_length)


def _prompts(options: PrepareOptions) -> Prompts | None:
    """Known before the first shard: whether the tokenizer can be had, and its vocabulary."""
    if options.prompts is None:
        return None
    size = loaded_tokenizer(options.prompts, options.prompt_length).vocabulary_size
    return Prompts(options.prompts, options.prompt_length, size)


def _settings(options: PrepareOptions, listing: Listing) -> dict[str, Any]:
    """What the bytes of the shards depend on, by name: the option where it is one."""
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
        **({} if options.ground == WHITE else {"--ground": options.ground}),
        **(text if options.text_encoder else {"--text-encoder": None}),
        **({"--prompts": options.prompts, "--prompt-length": options.prompt_length} if options.prompts else {}),
        "items of the input": len(listing),
        "sha256 of the input's listing": listing.found.sha256,
    }


def _works(options: PrepareOptions, listing: Listing) -> list[ShardWork]:
    text = options.text_encoder and TextSettings(
        options.text_encoder, options.caption_length, options.text_batch_size
    )
    prompts = PromptSettings(options.prompts, options.prompt_length) if options.prompts else None
    return [
        ShardWork(
            path=options.output / f"shard-{number:05d}.parquet",
            pieces=listing.pieces(start, start + options.shard_size),
            conditioning=listing.found.conditioning,
            image_size=options.image_size,
            min_side=options.min_side,
            ground=options.ground,
            text=text or None,
            prompts=prompts,
        )
        for number, start in enumerate(range(0, len(listing), options.shard_size))
    ]


def _sum_up(
    options: PrepareOptions,
    listing: Listing,
    captions: Captions | None,
    prompts: Prompts | None,
    facts: dict[str, ShardFacts],
) -> Manifest:
    skipped = [item for fact in facts.values() for item in fact.skipped]
    _write_skipped(options.output / SKIPPED, skipped)
    num_rows = sum(fact.num_rows for fact in facts.values())
    if not num_rows:
        name, reason = skipped[0]
        raise DataError(
            f"none of {len(listing)} items of {options.input} can be used; the first, {name}: {reason}"
        )
    found = listing.found
    schema = shard_schema(found.conditioning, captions is not None, prompts is not None)
    manifest = Manifest(
        format=FORMAT,
        kind=listing.kind,
        conditioning=found.conditioning,
        image_size=options.image_size,
        num_rows=num_rows,
        num_skipped=len(skipped),
        columns={field.name: str(field.type) for field in schema},
        rows_per_group=ROWS_PER_GROUP,
        classes=found.classes,
        max_label=max(fact.max_label for fact in facts.values()),
        captions=captions,
        input=shown_name(options.input),
        input_items=len(listing),
        input_sha256=found.sha256,
        shard_rows={name: fact.num_rows for name, fact in facts.items()},
        prompts=prompts,
    )
    manifest.write(options.output)
    return manifest


def _write_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"name": name, "reason": reason}) + "\n" for name, reason in skipped]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines))
