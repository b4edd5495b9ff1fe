"""`prepare INPUT OUTPUT`: your own pictures as shards."""

import argparse
import os

from deploy.prepare.options import KINDS, WHITE, PrepareOptions

HELP = "turn your own pictures into Parquet shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP}: class folders, webdataset tars, Parquet, saved data sets."
    parser.add_argument("input", metavar="INPUT", help="a folder, or one .tar or .parquet file")
    parser.add_argument("output", metavar="OUTPUT", help="folder for the shards; an unfinished one is resumed")
    add = parser.add_argument
    add("--image-size", type=int, required=True, metavar="N", help="side of the cropped pictures, in pixels")
    add("--kind", choices=KINDS, help="the kind of INPUT (default: detected)")
    add(
        "--min-side",
        type=int,
        default=0,
        metavar="N",
        help="skip pictures whose short side is smaller (default 0: none)",
    )
    add("--shard-size", type=int, default=1000, metavar="N", help="input items per shard (default 1000)")
    add("--ground", default=WHITE, metavar="COLOUR", help="colour under transparent pictures (default white)")
    add("--split", metavar="NAME", help="split to read (default train, if there are splits)")
    add("--image-column", metavar="NAME", help="tables: the column of pictures")
    add(
        "--label-column", metavar="NAME", help="tables: the column of class ids; tars: the extension (default cls)"
    )
    add("--caption-column", metavar="NAME", help="tables: the column of captions")
    add("--caption-field", metavar="NAME", help="tars: the field of KEY.json with the caption, as in text.0")
    add("--text-encoder", metavar="PATH", help="also store features of this T5 encoder: a folder or a hub name")
    add("--text-batch-size", type=int, default=32, metavar="N", help="captions encoded together (default 32)")
    add("--caption-length", type=int, default=120, metavar="N", help="most tokens per caption (default 120)")
    add("--prompts", metavar="PATH", help="also store the prompts of Janus-Pro, by its tokenizer.json or folder")
    add("--prompt-length", type=int, default=128, metavar="N", help="most tokens per prompt (default 128)")
    cpus = os.cpu_count() or 1
    add("--workers", type=int, default=cpus, metavar="N", help=f"Ray tasks at a time; 0: no Ray (default {cpus})")
    add("--gpus-per-worker", type=float, default=0.0, metavar="F", help="GPU share of a task (default 0)")


def run(arguments: argparse.Namespace) -> int:
    from common.image_shards import SKIPPED, read_skipped
    from common.paths import resolve
    from common.reasons import reasons_text
    from common.text import shown_name
    from deploy.prepare.prepare import prepare

    own = {name: getattr(arguments, name) for name in PrepareOptions.__dataclass_fields__}
    output = resolve(arguments.output)
    manifest = prepare(PrepareOptions(**own | {"input": resolve(arguments.input), "output": output}), say=print)
    print(f"{manifest.num_rows} pictures in {len(manifest.shard_rows)} shards at {shown_name(output)}")
    if manifest.num_skipped:
        why = reasons_text(reason for _, reason in read_skipped(output))
        print(f"{manifest.num_skipped} skipped, listed in {shown_name(output / SKIPPED)}: {why}")
    return 0
