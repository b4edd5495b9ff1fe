"""`plan RECIPE`: what a run needs, by arithmetic."""

import argparse
import json

from deploy.commands.arguments import add_recipe

HELP = "estimate a run's arithmetic, memory and time; needs no GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add = parser.add_argument
    add(
        "--gpu",
        default="a100",
        metavar="NAME",
        help="a100 (default), h100, l4, rtx4090, … or tflops=312,gb=80,gbps=2039",
    )
    add("--learner-ranks", type=int, metavar="M", help="learner ranks (default: the recipe's learner.num_ranks)")
    add(
        "--utilisation",
        metavar="SHARE",
        help="share of the GPU's peak to assume, as in 0.4 or transformer=0.4,convolution=0.3",
    )
    add("--price", type=float, metavar="P", help="of an hour of a GPU, for the run's cost")
    add("--json", action="store_true", help="print the plan as JSON")


def run(arguments: argparse.Namespace) -> int:
    from common.config.load import load_recipe
    from deploy.planning.gpus import gpu_named, utilisation_of

    ranks = arguments.learner_ranks
    overrides = [] if ranks is None else [f"learner.num_ranks={ranks}"]
    recipe = load_recipe(arguments.recipe, [*arguments.overrides, *overrides])
    gpu, utilisation = gpu_named(arguments.gpu), utilisation_of(arguments.utilisation)

    from deploy.planning.plan import make_plan
    from deploy.planning.plan_text import plan_text

    plan = make_plan(recipe, gpu, utilisation, arguments.price)
    print(json.dumps(plan.as_json(), indent=2) if arguments.json else plan_text(plan))
    return 0
