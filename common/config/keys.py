"""Every key of a recipe, read off the pydantic configuration: its type, default and meaning."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from common.config.base import Section
from common.config.recipe import Recipe

_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<"), MinLen: ("min_length", "length ≥")}


@dataclass(frozen=True)
class Key:
    path: str  # dotted, as an override names it
    type: str
    default: str  # as a recipe writes it; "required" where there is none
    meaning: str


@dataclass(frozen=True)
class Part:
    """A section of the recipe, or one of the kinds that it can be of."""

    path: str  # empty for the recipe itself
    kind: str  # such as "kind: mnist" where a section can be of several; else empty
    text: str
    is_optional: bool
    keys: list[Key]


def parts() -> Iterator[Part]:
    """The recipe's own keys, then its sections in order, each followed by those inside it."""
    yield from _parts(Recipe, "", "", False)


def flat(tree: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Dotted key and value of everything in a recipe's tree; an empty section stays a value."""
    pairs = []
    for key, value in tree.items():
        dotted = f"{path}.{key}" if path else key
        pairs += flat(value, dotted) if isinstance(value, dict) and value else [(dotted, value)]
    return pairs


def _parts(section: type[Section], path: str, kind: str, is_optional: bool) -> Iterator[Part]:
    keys, inner = [], []
    for name, field in section.model_fields.items():
        dotted = f"{path}.{name}" if path else name
        plain, sections = _split(field.annotation)
        if not sections or plain - {NoneType}:
            keys.append(_key(dotted, field))
        several = len(sections) > 1
        for member in sections:
            inner.append((member, dotted, _kind(member) if several else "", NoneType in plain))
    keys.sort(key=lambda key: not kind.startswith(f"{key.path.removeprefix(f'{path}.')}:"))  # what tells it apart
    yield Part(path, kind, _one_line(inspect.getdoc(section) if path else ""), is_optional, keys)
    for each in inner:
        yield from _parts(*each)


def _split(annotation: Any) -> tuple[set[Any], list[type[Section]]]:
    """The plain members of a union, and its sections."""
    members = _members(annotation)
    sections = [member for member in members if isinstance(member, type) and issubclass(member, Section)]
    return {member for member in members if member not in sections}, sections


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated and _split(get_args(annotation)[0])[1]:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for member in get_args(annotation) for each in _members(member)]
    return [annotation]


def _kind(section: type[Section]) -> str:
    """What tells this kind from its siblings: the key that takes one word."""
    fields = section.model_fields.items()
    words = {name: get_args(field.annotation) for name, field in fields if get_origin(field.annotation) is Literal}
    return next(f"{name}: {word[0]}" for name, word in words.items() if len(word) == 1)


def _key(path: str, field: FieldInfo) -> Key:
    default = "required" if field.is_required() else _written(field.get_default(call_default_factory=True))
    return Key(path, _type(field.annotation, field.metadata), default, _one_line(field.description))


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _type(annotation: Any, constraints: Any = ()) -> str:
    return f"{_bare_type(annotation)}{_limits(constraints)}"


def _bare_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], arguments[1:])
    if origin is Literal:
        return " \\| ".join(f"`{word}`" for word in arguments)
    if origin is tuple:
        count = "" if Ellipsis in arguments else f" of {len(arguments)}"
        return f"list{count}: {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin in (Union, UnionType):
        return " or ".join(_type(member) for member in arguments)
    return _NAMES.get(annotation, "a section, below")


def _limits(constraints: Any) -> str:
    limits = ""
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            limits += _limits(constraint.metadata)
        elif type(constraint) in _SIGNS:
            attribute, sign = _SIGNS[type(constraint)]
            limits += f", {sign} {getattr(constraint, attribute)}"
        elif pattern := getattr(constraint, "pattern", None):
            limits += f", matching `{pattern}`"
    return limits


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
