"""`local RECIPE`: the algorithm in this process."""

import argparse
import time

from deploy.commands.arguments import add_recipe, recipe_of

HELP = "post-train in this process: the same algorithm, no Ray"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.reporting.numbers import duration
    from deploy.reporting.report import report_line
    from deploy.runs.local_run import run_local

    began = time.monotonic()
    folder = run_local(recipe).path
    print(f"succeeded after {recipe.learner.num_steps} steps in {duration(time.monotonic() - began)}")
    print(f"run folder  {folder}")
    print(report_line(folder))
    return 0
