"""`init NAME --from PICTURES`: a recipe for one's own pictures."""

import argparse

HELP = "write a recipe for your own pictures: small models, from scratch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the run's name; the recipe is NAME.yaml in this folder")
    add = parser.add_argument
    add(
        "--from",
        dest="pictures",
        required=True,
        metavar="PICTURES",
        help="a folder with one sub-folder of pictures per class, or shards that `prepare` made of such",
    )
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="side of the cropped pictures (default 64, or 32 for small ones)",
    )


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from deploy.own_recipe.found import look_at
    from deploy.own_recipe.write import recipe_path, require_new, write_recipe

    name = arguments.name.removesuffix(".yaml")
    require_new(name)
    found = look_at(Path(arguments.pictures).expanduser())
    recipe = write_recipe(name, Path(arguments.pictures).expanduser(), found, arguments.image_size)
    path = recipe_path(name)
    print(
        f"wrote {path}: {found.num_pictures:,} pictures of {found.num_classes} classes, at {recipe.image_size} px"
    )
    print("next:")
    print(f"  python -m deploy pretrain {path}   # small models from scratch")
    print(f"  python -m deploy train {path}   # post-trains the generator, and scores it before and after")
    print(f"  python -m deploy report {recipe.run.dir}/{name}   # one page with curves, pictures and scores")
    return 0
