"""`python -m deploy sample`: its options, beside the recipe."""

import argparse
from pathlib import Path

from deploy.sampling.options import DEFAULT_NUM, LAYOUTS, SampleOptions


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", default="samples", help="folder for the pictures, or one to go on with (default samples)")
    add("--seed", type=int, default=0, help="seed of the draws (default 0)")
    add("--num", type=int, metavar="N", help=f"pictures of classes to draw (default {DEFAULT_NUM})")
    add(
        "--prompts",
        metavar="FILE",
        help="prompts: objects with the key prompt (.jsonl), or plain text, one a line",
    )
    add("--per-prompt", type=int, metavar="N", help="pictures of each prompt (default 1)")
    add("--text-encoder", metavar="PATH", help="the prompts' T5 encoder, as for prepare: a folder or a hub name")
    add(
        "--layout",
        choices=LAYOUTS,
        default="flat",
        help="flat: PNGs in one folder, and samples.npz; geneval: a folder a prompt, for its evaluator",
    )


def sample_options(arguments: argparse.Namespace) -> SampleOptions:
    """What was asked for. Raises RecipeError where options contradict each other."""
    own = {name: getattr(arguments, name) for name in SampleOptions.__dataclass_fields__}
    prompts = Path(arguments.prompts) if arguments.prompts else None
    return SampleOptions(**own | {"out": Path(arguments.out), "prompts": prompts})
