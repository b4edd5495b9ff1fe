"""`evaluate --geneval FOLDER`: GenEval's tasks over the pictures of a folder in its layout."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from actors.evaluation.geneval.rules import TASKS, Detection, Verdict, judge, kept, score_of_tasks
from actors.sources.picture import open_picture
from common.errors import BrokenImageError, DataError
from common.text import decoded, shown_name
from deploy.reporting.numbers import fixed
from deploy.scoring.prompted_pictures import METADATA, geneval_folders, pictures_in

Detect = Callable[[Image.Image], Sequence[Detection]]
ColoursIn = Callable[[Image.Image, str, Sequence[Detection]], list[str]]


@dataclass(frozen=True)
class GenEvalPicture:
    path: Path
    wanted: Mapping[str, Any]  # a line of GenEval's metadata


@dataclass(frozen=True)
class GenEvalResult:
    pictures: Sequence[GenEvalPicture]
    verdicts: Sequence[Verdict]
    detector: str
    clip: str

    def as_tree(self) -> dict[str, Any]:
        right = self._right()
        shares, overall = score_of_tasks(right)
        return {
            "detector": self.detector,
            "clip": self.clip,
            "overall": overall,
            "tasks": {task: {"score": share, "pictures": len(right[task])} for task, share in shares.items()},
            "wrong": {
                str(picture.path): list(verdict.reasons)
                for picture, verdict in zip(self.pictures, self.verdicts, strict=True)
                if not verdict.is_right
            },
        }

    def lines(self) -> Iterator[str]:
        tree = self.as_tree()
        yield f"{'GenEval':<20}{'score':>8}{'pictures':>10}"
        for task, found in tree["tasks"].items():
            yield f"{task:<20}{fixed(found['score']):>8}{found['pictures']:>10,}"
        missing = [task for task in TASKS if task not in tree["tasks"]]
        yield f"{'overall':<20}{fixed(tree['overall']):>8}{len(self.pictures):>10,}  mean of the tasks"
        yield f"by {self.detector} and {self.clip}: compare with scores of this detector alone"
        if missing:
            yield f"without {', '.join(missing)}: the published score is the mean of six tasks"

    def _right(self) -> dict[str, list[bool]]:
        right: dict[str, list[bool]] = {}
        for picture, verdict in zip(self.pictures, self.verdicts, strict=True):
            right.setdefault(picture.wanted["tag"], []).append(verdict.is_right)
        return right


def find_geneval(folder: Path) -> list[GenEvalPicture]:
    """All pictures of GenEval's layout. Raises DataError."""
    if not folder.is_dir() or not (folders := geneval_folders(folder)):
        raise DataError(
            f"--geneval {folder} is not in GenEval's layout (00000/{METADATA}, 00000/samples/00000.png): draw it "
            "by `sample --layout geneval --prompts evaluation_metadata.jsonl`"
        )
    found = []
    for each in folders:
        wanted = _wanted(each / METADATA)
        paths = pictures_in(each / "samples") if (each / "samples").is_dir() else []
        if not paths:
            raise DataError(f"{each} holds no pictures in samples/: draw them, or move the folder away")
        found += [GenEvalPicture(path, wanted) for path in paths]
    return found


def judged(picture: GenEvalPicture, detect: Detect, colours_in: ColoursIn) -> Verdict:
    try:
        image = open_picture(shown_name(picture.path), picture.path)
    except BrokenImageError as error:
        raise DataError(f"{error}: draw it again, or move its folder away") from None
    found = kept(detect(image), picture.wanted["tag"])
    return judge(found, picture.wanted, partial(colours_in, image))


def _wanted(path: Path) -> dict[str, Any]:
    """The one line of a folder's metadata, whole enough to judge by."""
    try:
        tree = json.loads(decoded(path.read_bytes()))
        _require(tree)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is no line of GenEval's evaluation_metadata.jsonl ({error!r}): draw it anew"
        ) from None
    return tree


def _require(tree: Any) -> None:
    if tree["tag"] not in TASKS:
        raise ValueError(f"tag {tree['tag']!r}, which is none of {', '.join(TASKS)}")
    for place, clause in enumerate(tree["include"]):
        if not isinstance(clause["class"], str) or not isinstance(clause["count"], int):
            raise ValueError(f"{clause} names no class and count")
        if "position" in clause and clause["position"][1] not in range(place):
            raise ValueError(f"position {clause['position']} is not to an earlier object")
    for clause in tree.get("exclude", ()):
        clause["class"], clause["count"]
