"""`check RECIPE`: prints one line per check."""

import argparse

from deploy.commands.arguments import add_recipe, recipe_of

HELP = "check what can be known before taking a GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Of weights files it reads names and shapes, not the numbers, and of images a few; it fetches "
        "nothing, and says what is missing and how to get it."
    )
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from common.hub import nothing_fetched
    from deploy.service.check import check

    num_problems = 0
    with nothing_fetched():
        for finding in check(recipe):
            num_problems += finding.problem is not None
            mark = "NO" if finding.problem else "ok"
            print(f"{mark}  {finding.subject:<11} {finding.problem or finding.detail}")
    return 2 if num_problems else 0
