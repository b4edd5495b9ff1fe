"""Reads a recipe file, applies `key=value` overrides, and turns every mistake into one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from common.config.recipe import Recipe
from common.errors import RecipeError


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The checked recipe at `path` (YAML, or a run's recipe.json) with `key=value` overrides applied.

    Raises RecipeError: the key, the value seen, what is needed.
    """
    tree = _read(Path(path))
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_sentence(error)}") from None


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A copy of `recipe` with dotted keys set to other values, checked again."""
    tree = recipe.model_dump(mode="json")
    for key, value in changes.items():
        _set(tree, key, value)
    return Recipe.model_validate(tree)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: the shipped ones are in deploy/recipes") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no recipe: a mapping of sections is needed")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"'{override}' is no override: write key=value, as in learner.lr=1e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"'{override}': the value is not YAML; quote it") from None
    _set(tree, key, value)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        child = tree.setdefault(section, {})
        if not isinstance(child, dict):
            raise RecipeError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
        tree = child
    tree[last] = value


def _sentence(error: ValidationError) -> str:
    """The first mistake, as `key = value: what is needed`. Unknown keys come first: they cause others."""
    details = error.errors()
    first = min(details, key=lambda item: (item["type"] != "extra_forbidden", _is_other_member(item)))
    path = [str(part) for part in first["loc"] if not _is_tag(part)]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        *parents, name = path
        near = get_close_matches(name, _known_keys(parents), n=1)
        hint = f"did you mean {'.'.join((*parents, near[0]))}?" if near else "see deploy/recipes"
        return f"{key} is not a recipe key: {hint}"
    if first["type"] == "missing":
        return f"{key} is missing: set it"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    return f"{key} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


# The names that pydantic puts into an error's path for the member of a union it tried.
_TAGS = {"mnist", "image_folder", "parquet", "lpips", "shift_tolerant_lpips", "TransformerSize", "TokenizerSize"}


def _is_tag(part: int | str) -> bool:
    return part in _TAGS or str(part).startswith("literal[")


def _is_other_member(item: Any) -> bool:
    """A mapping that is no name of a published size: what is wrong with it as a size of one's own says more."""
    return item["type"] == "literal_error" and isinstance(item["input"], dict)


def _known_keys(parents: Iterable[str]) -> list[str]:
    """The keys of a section; of all its kinds, where it can be of several."""
    sections: list[type[BaseModel]] = [Recipe]
    for name in parents:
        kinds = [section.model_fields[name].annotation for section in sections if name in section.model_fields]
        members = [member for kind in kinds for member in get_args(kind) or (kind,)]
        sections = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    return [key for section in sections for key in section.model_fields]
