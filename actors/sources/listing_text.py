"""What a look into a folder of class folders found, in words."""

import re
from collections.abc import Iterator

from actors.sources.class_folders import ClassFolders
from common.reasons import names_text
from common.text import shown_name

SHOWN_CLASSES, SHOWN_NAMES = 5, 3


def classes_text(names: tuple[str, ...]) -> str:
    """Number and first names of classes, in the order of their ids."""
    if not names:
        return "no classes"
    first = names_text(map(shown_name, names), SHOWN_CLASSES)
    return f"{len(names):,} class{'es' if len(names) > 1 else ''} ({first})"


def listing_notes(found: ClassFolders) -> Iterator[str]:
    """What a user would want to know of the listing, a clause each."""
    if found.split:
        yield f"read from the folder of the split {shown_name(found.split)}"
    if list(found.names) != sorted(found.names):
        yield "class ids follow the numbers that are the folders' names"
    elif sorted(found.names, key=_numbers_in) != list(found.names):
        yield "class ids follow the names as text, not the numbers in them"
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.passed_over.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield f"passed over: {names_text(names, SHOWN_NAMES)} ({reason})"
    if found.loose:
        loose = names_text(map(found.name_of, found.loose), SHOWN_NAMES)
        yield f"without a class, beside the class folders: {loose}"


def _numbers_in(name: str) -> list[tuple[bool, int, str]]:
    """A key that puts a9 before a10."""
    parts = re.split(r"([0-9]+)", name)
    return [(bool(place % 2), int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]
