"""`local RECIPE`: the algorithm in this process."""

import argparse

from deploy.commands.arguments import add_recipe, recipe_of

HELP = "post-train in this process: the same algorithm, no Ray"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.runs.local_run import run_local

    print(f"run folder  {run_local(recipe).path}")
    return 0
