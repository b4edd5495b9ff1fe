"""`evaluate RECIPE`: scores as JSON."""

import argparse

from deploy.commands.arguments import add_checkpoint, add_recipe, recipe_of

HELP = "score a generator, teacher-forced and free-running"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--pictures", metavar="FOLDER_OR_NPZ", help="score these instead of drawing pictures")
    add("--out", help="also write the scores to this JSON file, and a picture grid beside it")
    add("--grid", help="write the picture grid to this PNG file")


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.scoring.evaluate import evaluate

    evaluate(recipe, arguments.checkpoint, arguments.pictures, arguments.out, arguments.grid)
    return 0
