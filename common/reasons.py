"""Why things were left out, counted and in one line."""

import re
from collections.abc import Iterable

SHOWN = 3

_PARTICULARS = re.compile(r"b?'[^']*'|b?\"[^\"]*\"|-?\d[\d,.]*")  # what differs between items of one kind


def reasons_text(reasons: Iterable[str]) -> str:
    """The commonest kinds of reason, each by its first wording: `4 no pictures, 1 its class id is -1`."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(_PARTICULARS.sub("#", reason), []).append(reason)
    common = sorted(kinds.values(), key=len, reverse=True)
    parts = [f"{len(kind)} x {kind[0]}{_alike(kind)}" for kind in common[:SHOWN]]
    rest = sum(len(kind) for kind in common[SHOWN:])
    return "; ".join([*parts, f"{rest} for other reasons"] if rest else parts)


def _alike(kind: list[str]) -> str:
    return " or the like" if len(set(kind)) > 1 else ""


def names_text(names: Iterable[str], shown: int) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {more:,} more" if more > 0 else "")
