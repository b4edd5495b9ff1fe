"""`init`: a commented recipe for one's own pictures."""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from common.atomic import replacing
from common.config.load import load_recipe
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.paths import CHECKOUT
from deploy.own_recipe.found import Found

TEMPLATE = Path(__file__).with_name("recipe.yaml.j2")
SCHEMA = CHECKOUT / "deploy" / "recipes" / "recipe.schema.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
GRID = 8  # tokens along a side, about
LARGEST_DEFAULT = 64  # pixels that a laptop trains on in minutes
NAMES_SHOWN = 8
STEPS = {"classifier": 300, "tokenizer": 500, "policy": 800}


def require_new(name: str) -> None:
    """RecipeError where `name` is no run's name, or something of that name is there."""
    if not NAME.fullmatch(name):
        raise RecipeError(
            f"NAME is {name!r}: use letters, digits, '.', '_' and '-', and begin with one of the first two"
        )
    for path in (recipe_path(name), models_folder(name)):
        if path.exists():
            raise RecipeError(f"{path} is there, of an earlier recipe: choose another NAME, or move it away")


def recipe_path(name: str) -> Path:
    return Path(f"{name}.yaml")


def models_folder(name: str) -> Path:
    return CHECKOUT / "models" / name


def write_recipe(name: str, pictures: Path, found: Found, image_size: int | None) -> Recipe:
    """Write NAME.yaml in the working folder, and give it back as read. Raises RecipeError."""
    path = recipe_path(name)
    text = recipe_text(name, pictures, found, image_size)
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path} cannot be written ({error.strerror}): go to another folder") from None
    except UnicodeEncodeError:
        raise RecipeError(f"--from {str(pictures)!r} is no UTF-8, which a recipe is: rename the folder") from None
    return load_recipe(path)


def recipe_text(name: str, pictures: Path, found: Found, image_size: int | None) -> str:
    side, note = _image_size(found, image_size)
    return _template().render(
        name=json.dumps(name),
        run_name=name,
        schema=SCHEMA,
        path=json.dumps(_portable(pictures), ensure_ascii=False),
        kind=found.kind,
        num_pictures=found.num_pictures,
        num_classes=found.num_classes,
        class_note=_class_note(found.classes),
        image_size=side,
        size_note=note,
        models=f'"models/{name}',
        obtain_from=json.dumps(f"python -m deploy pretrain {recipe_path(name)}"),
        steps=STEPS,
        **_tokens(side),
        **_amounts(found),
    )


def _amounts(found: Found) -> dict[str, Any]:
    """Batches that the pictures fill, and as many samples of each class."""
    held_out_fraction = 0.2 if found.num_pictures < 500 else 0.1
    num_held_out = round(held_out_fraction * found.num_pictures)
    num_train = found.num_pictures - num_held_out
    batch_size = 2 ** min(5, num_train.bit_length() - 1)
    return {
        "held_out_fraction": held_out_fraction,
        "num_held_out": num_held_out,
        "num_scored": min(64, num_held_out),
        "batch_size": batch_size,
        "images_per_step": batch_size,
        "images_per_ticket": min(8, batch_size),
        "num_samples": found.num_classes * -(-200 // found.num_classes),
        "has_classifier": found.num_classes > 1,
    }


def _tokens(side: int) -> dict[str, Any]:
    """Levels of the tokenizer that leave about GRID tokens along a side."""
    halvings = min((2, 3, 4, 5), key=lambda number: (side % 2**number > 0, abs(side // 2**number - GRID)))
    return {"multipliers": [1] * (halvings + 1), "grid": side // 2**halvings, "codebook_size": 256}


def _image_size(found: Found, wanted: int | None) -> tuple[int, str]:
    if found.kind == "parquet":
        if wanted not in (None, found.side):
            raise RecipeError(
                f"--image-size is {wanted}, and the shards hold images of {found.side} px: prepare anew"
            )
        return found.side or 0, "that of the shards"
    seen = (
        f"the median picture's short side is {found.side}" if found.side else "no picture looked at could be read"
    )
    if wanted is None:
        return next((size for size in (LARGEST_DEFAULT,) if size <= (found.side or 0)), 32), seen
    if wanted < 32 or wanted % 8:
        raise RecipeError(f"--image-size is {wanted}: use a multiple of 8, 32 or more")
    return wanted, seen


def _class_note(classes: tuple[str, ...]) -> str:
    """The first names, as a comment."""
    if not classes:
        return ""
    names = ", ".join(f"{number} {_in_a_line(name)}" for number, name in enumerate(classes[:NAMES_SHOWN]))
    return f" # {names}{', …' if len(classes) > NAMES_SHOWN else ''}"


def _in_a_line(name: str) -> str:
    name = name.encode("utf-8", "backslashreplace").decode()
    return name if name.isprintable() else json.dumps(name)


def _portable(pictures: Path) -> str:
    """Relative where it is in the checkout, so that it means the same on every node."""
    path = pictures.absolute()
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else str(path)


def _template() -> Any:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(TEMPLATE.read_text())
