"""`pretrain RECIPE`: small models from scratch."""

import argparse

from deploy.commands.arguments import add_recipe, recipe_of

HELP = "train tokenizer, generator and what scores them from scratch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--overwrite", action="store_true", help="retrain models whose weights already exist")


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_of(arguments)
    from deploy.pretraining.pretrain import pretrain

    pretrain(recipe, overwrite=arguments.overwrite, say=lambda line: print(line, flush=True))
    return 0
