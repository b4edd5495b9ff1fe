"""`sample RECIPE`: free-running pictures."""

import argparse
from pathlib import Path

from deploy.commands.arguments import add_checkpoint, add_recipe, recipe_for_ray
from deploy.sampling.options import DEFAULT_NUM, LAYOUTS, SampleOptions

HELP = "draw free-running pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--out", default="samples", help="folder for the pictures; an unfinished one is resumed (default samples)")
    add("--seed", type=int, default=0, help="seed of the draws (default 0)")
    add("--num", type=int, metavar="N", help=f"pictures to draw from classes (default {DEFAULT_NUM})")
    add(
        "--prompts",
        metavar="FILE",
        help="prompts: JSON objects with the key prompt (.jsonl), or plain text, one per line",
    )
    add("--per-prompt", type=int, metavar="N", help="pictures per prompt (default 1)")
    add(
        "--text-encoder",
        metavar="PATH",
        help="the prompts' T5 encoder, as for prepare: a folder or a hub name; or Janus-Pro's tokenizer.json, "
        "unless policy.prompt_tokenizer names it",
    )
    add(
        "--layout",
        choices=LAYOUTS,
        default="flat",
        help="flat: PNGs in one folder, and samples.npz; geneval: one folder per prompt, for its evaluator",
    )


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_for_ray(arguments)
    from deploy.cluster.local_machine import require_local
    from deploy.sampling.sample import sample

    require_local(recipe, with_learner=False)
    print(f"wrote {sample(recipe, _options(arguments))}")
    return 0


def _options(arguments: argparse.Namespace) -> SampleOptions:
    """The options given. Raises RecipeError if they contradict each other."""
    own = {name: getattr(arguments, name) for name in SampleOptions.__dataclass_fields__}
    prompts = Path(arguments.prompts) if arguments.prompts else None
    return SampleOptions(**own | {"out": Path(arguments.out), "prompts": prompts})
