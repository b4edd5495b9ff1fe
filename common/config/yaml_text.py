"""YAML as recipes and studies use it: what PyYAML reads, without keys that are given twice."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"  # the key <<


class RepeatedKeyError(ValueError):
    """A mapping names a key twice; the message names it and both lines."""


def read_yaml(text: str) -> Any:
    """The value of a YAML text. Raises RepeatedKeyError, and yaml.YAMLError for what is not YAML.

    PyYAML takes the last of two equal keys in silence: a second `learner:` would replace the first.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        for key, line, first in _repeated(node):
            raise RepeatedKeyError(f"line {line} gives {key} again, which line {first} gives: keep one of them")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, RepeatedKeyError):
            raise
        raise yaml.YAMLError(f"{error}; quote what is text") from None  # such as a date in a 13th month
    finally:
        loader.dispose()


def read_as(value: object) -> str | None:
    """What YAML takes an unquoted word for, where that is no text."""
    match value:
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case date():
            return f"the date {value}"
    return None


def _repeated(root: yaml.Node) -> Iterator[tuple[str, int, int]]:
    """Dotted name, line and first line of each key that its mapping already has."""
    waiting, seen = [(root, "")], set[int]()
    while waiting:
        node, path = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(each, f"{path}[{index}]") for index, each in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                dotted, line = f"{path}.{name}" if path else name, key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    if (key.tag, name) in lines:
                        yield dotted, line, lines[key.tag, name]
                    lines[key.tag, name] = line
                waiting.append((value, dotted))
