"""`evaluate RECIPE`: scores as a table, or as JSON."""

import argparse
import json
import sys

from deploy.commands.arguments import add_checkpoint, add_recipe, recipe_of

HELP = "score a generator, teacher-forced and free-running"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--pictures", metavar="FOLDER_OR_NPZ", help="score these instead of drawing pictures")
    add("--json", action="store_true", help="print the scores as JSON, not as a table")
    add("--out", help="also write the scores to this JSON file, and a picture grid beside it")
    add("--grid", help="write the picture grid to this PNG file")


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.scoring.evaluate import evaluate, write_files
    from deploy.scoring.scores_text import scores_text

    result = evaluate(recipe, arguments.checkpoint, arguments.pictures)
    if arguments.json:
        print(json.dumps(result.scores, indent=2))
    else:
        print(scores_text(recipe, result, arguments.pictures))
    for path in write_files(result, arguments.out, arguments.grid):
        print(f"wrote {path}", file=sys.stderr if arguments.json else sys.stdout)
    return 0
