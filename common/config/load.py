"""Reads a recipe file, applies `key=value` overrides, and turns every mistake into one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from common.config.named_file import RECIPES, find_file
from common.config.recipe import Recipe
from common.config.yaml_text import RepeatedKeyError, read_as, read_yaml
from common.errors import RecipeError


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The checked recipe at `path` (YAML, or a run's recipe.json) with `key=value` overrides applied.

    `path` may also be the name of a shipped one, such as emoji. Raises RecipeError with the key, the value seen
    and what is needed.
    """
    file = find_file(path, RECIPES, "recipe")
    tree = _read(file)
    for override in overrides:
        _apply(tree, override)
    return checked(tree, str(file))


def checked(tree: dict[str, Any], what: str) -> Recipe:
    """The recipe with these sections. Raises RecipeError, with one sentence about `what`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{what}: {_sentence(error, tree)}") from None


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A copy of `recipe` with the dotted keys changed, checked again (raises pydantic's ValidationError)."""
    tree = recipe.model_dump(mode="json")
    for key, value in changes.items():
        _set(tree, key, value)
    return Recipe.model_validate(tree)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8-sig"))
    except RepeatedKeyError as error:
        raise RecipeError(f"{path}: {error}") from None
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
        value = read_yaml(text)
    except RepeatedKeyError as error:
        raise RecipeError(f"'{override}': {error}") from None
    except yaml.YAMLError:
        raise RecipeError(f"'{override}': the value is not YAML; quote it") from None
    _set(tree, key, value)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        if tree.get(section) is None:  # an omitted optional section
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise RecipeError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    for name in _names(sections, last):
        tree.pop(name, None)
    tree[last] = value


def _sentence(error: ValidationError, tree: dict[str, Any]) -> str:
    """The first mistake, as `key is value: what is needed`. Unknown keys come first because they cause others."""
    first = min(error.errors(), key=lambda item: (item["type"] != "extra_forbidden", _is_other_member(item)))
    path = _path(first, tree)
    key = ".".join(path)
    match first["type"]:
        case "extra_forbidden":
            return _unknown(*path)
        case "missing" | "union_tag_not_found":
            return f"{key} is missing: set it"
        case "union_tag_invalid":
            return f"{key} is {first['ctx']['tag']!r}: input should be one of {first['ctx']['expected_tags']}"
        case "value_error":
            return first["msg"].removeprefix("Value error, ")
    return f"{key} is {first['input']!r}: {needed(first)}"


def needed(mistake: ErrorDetails) -> str:
    """What a value should have been; a word that YAML reads as something else than text should have had quotes."""
    seen = read_as(mistake["input"])
    if seen and mistake["type"] == "string_type":
        return f"YAML reads it as {seen}; quote it"
    return f"{mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _is_other_member(item: ErrorDetails) -> bool:
    """Whether this is a mapping refused as a published size's name: its errors as a custom size say more."""
    return item["type"] == "literal_error" and isinstance(item["input"], dict)


def _path(mistake: ErrorDetails, tree: Any) -> list[str]:
    """The names of the key and its sections. pydantic also lists the union members it tried, which are not in the
    tree."""
    path = []
    for part in mistake["loc"]:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(str(part))
    if mistake["type"] == "missing":
        path.append(str(mistake["loc"][-1]))
    if "discriminator" in mistake.get("ctx", {}):
        path.append(mistake["ctx"]["discriminator"].strip("'"))
    return path


def _unknown(*path: str) -> str:
    *sections, name = path
    key, prefix = ".".join(path), "".join(f"{section}." for section in sections)
    own, *older = _names(sections, name)
    if name in older:
        return f"{key} is an older name of {prefix}{own}, which is given too: leave {key} out"
    near = get_close_matches(name, _fields(sections), n=1)
    return f"{key} is not a recipe key: {f'did you mean {prefix}{near[0]}?' if near else 'see deploy/recipes'}"


def _names(sections: Iterable[str], name: str) -> list[str]:
    """All names of the key called `name`: the current one first, then older ones."""
    for field in _fields(sections).values():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and name in alias.choices:
            return [str(each) for each in alias.choices]
    return [name]


def _fields(sections: Iterable[str]) -> dict[str, FieldInfo]:
    """The keys of a section, or of all its kinds if it has several."""
    kinds: list[type[BaseModel]] = [Recipe]
    for name in sections:
        annotations = [kind.model_fields[name].annotation for kind in kinds if name in kind.model_fields]
        members = [member for annotation in annotations for member in get_args(annotation) or (annotation,)]
        kinds = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    return {name: field for kind in kinds for name, field in kind.model_fields.items()}
