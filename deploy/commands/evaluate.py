"""`evaluate RECIPE`: scores as a table, or as JSON."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.commands.arguments import add_checkpoint, add_recipe, recipe_of

if TYPE_CHECKING:
    from common.config.recipe import Recipe

HELP = "score a generator, teacher-forced and free-running"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--pictures", metavar="FOLDER_OR_NPZ", help="score these instead of drawing pictures")
    add(
        "--scores",
        metavar="NAMES",
        help="clip, hps, pickscore, aesthetic, with commas: of the pictures of --pictures and nothing else, or of "
        "those drawn, beside the other scores",
    )
    add(
        "--prompts",
        metavar="PATH",
        help="what those pictures were drawn from: a file as for sample, or HPD's folder of a file a style; not "
        "for GenEval's layout, which has its own",
    )
    add(
        "--geneval",
        metavar="FOLDER",
        help="GenEval's six tasks over a folder in its layout, and nothing else",
    )
    add("--json", action="store_true", help="print the scores as JSON, not as a table")
    add("--out", help="also write the scores to this JSON file, and a picture grid beside it")
    add("--grid", help="write the picture grid to this PNG file")


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from common.config.load import with_changes
    from common.config.reward_models import named_preferences
    from common.errors import RecipeError
    from deploy.scoring.evaluate import evaluate, write_files
    from deploy.scoring.scores_text import scores_text

    if arguments.geneval:
        return _geneval(recipe, arguments)
    if arguments.scores and arguments.pictures:
        return _prompted(recipe, arguments)
    if arguments.prompts:
        raise RecipeError("--prompts is for --scores of --pictures: to draw pictures of prompts, use `sample`")
    if arguments.scores:
        recipe = with_changes(recipe, {"evaluation.scores": named_preferences(arguments.scores)})
    result = evaluate(recipe, arguments.checkpoint, arguments.pictures)
    if arguments.json:
        print(json.dumps(result.scores, indent=2))
    else:
        print(scores_text(recipe, result, arguments.pictures))
    for path in write_files(result, arguments.out, arguments.grid):
        print(f"wrote {path}", file=sys.stderr if arguments.json else sys.stdout)
    return 0


def _prompted(recipe: "Recipe", arguments: argparse.Namespace) -> int:
    """Preference scores of pictures with prompts; the generator is not loaded."""
    from common.config.reward_models import named_preferences
    from deploy.scoring.evaluate import evaluate_prompted
    from deploy.scoring.prompted_scores import scores_lines

    result = evaluate_prompted(recipe, named_preferences(arguments.scores), arguments.pictures, arguments.prompts)
    return _told(result.as_tree(), scores_lines(result), arguments)


def _geneval(recipe: "Recipe", arguments: argparse.Namespace) -> int:
    from deploy.scoring.evaluate import evaluate_geneval

    result = evaluate_geneval(recipe, arguments.geneval)
    return _told(result.as_tree(), result.lines(), arguments)


def _told(tree: dict[str, Any], lines: Iterable[str], arguments: argparse.Namespace) -> int:
    from common.atomic import write_json

    print(json.dumps(tree, indent=2) if arguments.json else "\n".join(lines))
    if arguments.out:
        write_json(Path(arguments.out), tree)
        print(f"wrote {arguments.out}", file=sys.stderr if arguments.json else sys.stdout)
    return 0
