"""The recipe on the page: what differs from the defaults first, then all of it."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from common.config.keys import flat, parts
from common.config.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    key: str
    value: str
    default: str


@dataclass(frozen=True)
class RecipePart:
    settings: list[Setting] | None  # that differ; None of a recipe that this version of the code does not know
    whole: str


def recipe_part(recipe: dict[str, Any]) -> RecipePart:
    whole = json.dumps(recipe, indent=2, ensure_ascii=False)
    try:
        return RecipePart(_settings(Recipe.model_validate(recipe)), whole)
    except ValidationError:
        return RecipePart(None, whole)


def _settings(recipe: Recipe) -> list[Setting]:
    defaults = _defaults(dict(flat(recipe.model_dump(mode="json"))))
    different = flat(recipe.model_dump(mode="json", exclude_defaults=True))
    return [Setting(key, json.dumps(value, ensure_ascii=False), defaults.get(key, "")) for key, value in different]


def _defaults(settings: dict[str, Any]) -> dict[str, str]:
    """Of each key; where a section can be of several kinds, of the kind that it is of."""
    kinds = {f"{key}: {value}" for key, value in settings.items()}
    own = [part for part in parts() if not part.kind or f"{part.path}.{part.kind}" in kinds]
    return {key.path: key.default if key.default != "required" else "none" for part in own for key in part.keys}
