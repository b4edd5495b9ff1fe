"""Arguments shared by commands: a recipe with its `key=value` overrides, or a run."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config.recipe import Recipe


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped one, such as emoji"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="recipe keys to set, as in learner.lr=1e-5"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", help="weights file or checkpoint folder (default: the recipe's policy)")


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="a run folder; or a run's name, if RAY_ADDRESS is set")


def recipe_of(arguments: argparse.Namespace) -> "Recipe":
    """The checked recipe; also sets up its log format. Raises RecipeError."""
    from common.config.load import load_recipe
    from common.log import set_up_logging

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    set_up_logging(recipe.log.format)
    return recipe


def recipe_for_ray(arguments: argparse.Namespace) -> "Recipe":
    """The recipe, for a command that starts or joins Ray: Ray reads its environment when imported."""
    recipe = recipe_of(arguments)
    from deploy.cluster.ray_environment import set_ray_environment

    set_ray_environment(recipe.log.format)
    return recipe
