"""`check RECIPE`: prints one line per check."""

import argparse

from deploy.commands.arguments import add_recipe, recipe_of

HELP = "check what can be known before taking a GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.service.check import check

    num_problems = 0
    for finding in check(recipe):
        num_problems += finding.problem is not None
        mark = "NO" if finding.problem else "ok"
        print(f"{mark}  {finding.subject:<11} {finding.problem or finding.detail}")
    return 2 if num_problems else 0
