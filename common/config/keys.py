"""Every key of a recipe, read from its JSON schema: type, limits, default and meaning."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from common.config.recipe import Recipe

Schema = dict[str, Any]

_NULL = {"type": "null"}
_NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "length ≥ {}",
    "pattern": "matching `{}`",
}


@dataclass(frozen=True)
class Key:
    path: str  # dotted, as in an override
    type: str  # with its limits
    default: str  # as in a recipe; "required" without one
    meaning: str


@dataclass(frozen=True)
class Part:
    """A section of the recipe, or one of its kinds."""

    path: str  # empty for the recipe itself
    kind: str  # such as "kind: mnist" if a section has several kinds; else empty
    text: str
    is_optional: bool
    keys: list[Key]


@cache
def recipe_schema() -> Schema:
    """The JSON schema of a recipe, for editors."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Recipe.model_json_schema()}


def parts() -> Iterator[Part]:
    """The recipe's own keys, then its sections in order, each followed by its subsections."""
    return _parts(recipe_schema(), path="", kind="", is_optional=False)


def flat(tree: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """The dotted key and value of everything in a recipe's tree; an empty section counts as a value."""
    pairs = []
    for key, value in tree.items():
        dotted = f"{path}.{key}" if path else key
        pairs += flat(value, dotted) if isinstance(value, dict) and value else [(dotted, value)]
    return pairs


def _parts(section: Schema, path: str, kind: str, is_optional: bool) -> Iterator[Part]:
    keys: list[Key] = []
    inner: list[Iterator[Part]] = []
    for name, schema in sorted(section["properties"].items(), key=lambda each: "const" not in each[1]):
        dotted = f"{path}.{name}" if path else name
        members = _members(schema)
        sections = [_section(member) for member in members if "$ref" in member]
        if any("$ref" not in member and member != _NULL for member in members):
            default = json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else "required"
            keys.append(Key(dotted, _type(schema), default, schema.get("description", "")))
        for each in sections:
            inner.append(_parts(each, dotted, _kind(each) if len(sections) > 1 else "", _NULL in members))
    yield Part(path, kind, section.get("description", ""), is_optional, keys)
    for found in inner:
        yield from found


def _members(schema: Schema) -> list[Schema]:
    """The alternatives for a value."""
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


def _section(reference: Schema) -> Schema:
    return recipe_schema()["$defs"][reference["$ref"].removeprefix("#/$defs/")]


def _kind(section: Schema) -> str:
    """What distinguishes this kind from its siblings: the key with only one value."""
    return next(f"{name}: {key['const']}" for name, key in section["properties"].items() if "const" in key)


def _type(schema: Schema) -> str:
    return ", or ".join(
        ", ".join([_bare(each), *(text.format(each[name]) for name, text in _LIMITS.items() if name in each)])
        for each in _members(schema)
    )


def _bare(schema: Schema) -> str:
    match schema:
        case {"$ref": _}:
            return "a section, below"
        case {"const": word}:
            return f"`{word}`"
        case {"enum": words}:
            return " | ".join(f"`{word}`" for word in words)
        case {"prefixItems": [first, *others]}:
            return f"list of {1 + len(others)}: {_type(first)}"
        case {"items": items}:
            return f"list of at least {schema.get('minItems', 0)}: {_type(items)}"
        case {"additionalProperties": values}:
            return f"mapping of text to {_type(values)}"
    return _NAMES[schema["type"]]
