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
        different = Recipe.model_validate(recipe).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return RecipePart(None, whole)
    return RecipePart(_settings(different), whole)


def _settings(different: dict[str, Any]) -> list[Setting]:
    defaults = {key.path: key.default for part in parts() for key in part.keys}
    written = [(key, json.dumps(value, ensure_ascii=False)) for key, value in flat(different)]
    differing = [(key, value, defaults.get(key, "")) for key, value in written if defaults.get(key) != value]
    return [Setting(key, value, "none" if default == "required" else default) for key, value, default in differing]
