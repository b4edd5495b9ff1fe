"""GenEval's rules (arXiv 2310.11513): whether what was found in a picture is what its prompt asks for.

No network here: detections come in, a verdict goes out. Letters: H, W of a picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
CONFIDENCE, COUNTING_CONFIDENCE = 0.3, 0.9
MOST_OBJECTS = 16  # of a class
POSITION_SLACK = 0.1  # of both sizes together, before an offset counts
_DIRECTION = 0.5  # of a unit vector, from where on it is that way
_STILL = 1e-3  # pixels


@dataclass(frozen=True)
class Detection:
    name: str
    score: float
    box: tuple[float, float, float, float]  # left, top, right, bottom, in pixels
    mask_HW: np.ndarray  # bool


@dataclass(frozen=True)
class Verdict:
    is_right: bool
    reasons: tuple[str, ...] = ()


ColoursOf = Callable[[str, Sequence[Detection]], list[str]]
"""The colour of each of some objects of one name."""


def kept(detections: Sequence[Detection], task: str) -> dict[str, list[Detection]]:
    """By name, those that are sure enough, the surest first; at most MOST_OBJECTS of each. Overlaps stay."""
    least = COUNTING_CONFIDENCE if task == "counting" else CONFIDENCE
    found: dict[str, list[Detection]] = {}
    for each in sorted(detections, key=lambda detection: -detection.score):
        if each.score > least and len(found.setdefault(each.name, [])) < MOST_OBJECTS:
            found[each.name].append(each)
    return {name: objects for name, objects in found.items() if objects}


def judge(found: Mapping[str, Sequence[Detection]], wanted: Mapping[str, Any], colours_of: ColoursOf) -> Verdict:
    """Whether all of `include` is there and none of `exclude`, by a line of GenEval's metadata.

    Of each clause the surest `count` objects are looked at. A position is to those of an earlier clause, named by
    its place.
    """
    reasons: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for clause in wanted.get("include", ()):
        name, count = clause["class"], clause["count"]
        objects = found.get(name, ())[:count]
        problem = f"{len(objects)} {name} of {count}" if len(objects) < count else None
        if problem is None and "color" in clause:
            problem = _colour_problem(name, objects, clause, colours_of)
        if problem is None and "position" in clause:
            problem = _position_problem(name, objects, clause["position"], matched)
        reasons += [problem] if problem else []
        matched.append(None if problem else objects)
    for clause in wanted.get("exclude", ()):
        name, count = clause["class"], clause["count"]
        if len(found.get(name, ())) >= count:
            reasons.append(f"{len(found[name])} {name}, which is {count} or more")
    return Verdict(not reasons, tuple(reasons))


def directions(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """Where a box is as seen from another: none, one or two of `left of`, `right of`, `above`, `below`."""
    corners = np.array([box, other], dtype=np.float64).reshape(2, 2, 2)
    center, other_center = corners.mean(axis=1)
    sizes = np.abs(corners[:, 1] - corners[:, 0]).sum(axis=0)
    offset = center - other_center
    beyond = np.maximum(np.abs(offset) - POSITION_SLACK * sizes, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < _STILL):
        return set()
    right, down = beyond / np.linalg.norm(offset)
    ways = {"left of": -right, "right of": right, "above": -down, "below": down}
    return {way for way, part in ways.items() if part > _DIRECTION}


def score_of_tasks(right: Mapping[str, Sequence[bool]]) -> tuple[dict[str, float], float]:
    """The share of right pictures of each task that has some, in order, and the mean of these shares."""
    shares = {task: float(np.mean(right[task])) for task in TASKS if right.get(task)}
    return shares, float(np.mean(list(shares.values())))


def _colour_problem(
    name: str, objects: Sequence[Detection], clause: Mapping[str, Any], colours_of: ColoursOf
) -> str | None:
    seen = colours_of(name, objects)
    if seen.count(clause["color"]) >= clause["count"]:
        return None
    return f"{name} is {', '.join(sorted(set(seen)))}, not {clause['color']}"


def _position_problem(
    name: str,
    objects: Sequence[Detection],
    position: Sequence[Any],
    matched: Sequence[Sequence[Detection] | None],
) -> str | None:
    way, place = position
    targets = matched[place]
    if targets is None:
        return f"nothing that {name} could be {way}"
    for one in objects:
        for target in targets:
            ways = directions(one.box, target.box)
            if way not in ways:
                return f"{name} is {' and '.join(sorted(ways)) or 'in the same place'}, not {way} it"
    return None
