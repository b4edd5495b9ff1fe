"""What a study leaves in its folder: a JSON file a finished cell, and pictures beside it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.atomic import write_json
from common.config.recipe import Recipe
from common.errors import RecipeError
from deploy.ablation.study import BASE, Cell, Study

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class CellResult:
    """A cell that was trained and scored."""

    variant: str
    seed: int
    delay: int
    recipe: dict[str, Any]
    seconds: float  # of the training, wall clock
    steps: list[dict[str, Any]]  # what each step measured
    scores: Numbers


@dataclass(frozen=True)
class BaseResult:
    """The base under as many sampling seeds as the noise is measured over."""

    recipe: dict[str, Any]
    scores: list[Numbers]  # one a sampling seed, from evaluation.seed on


class StudyFolder:
    def __init__(self, path: Path):
        self.path = path

    def picture(self, name: str) -> Path:
        return self.path / "cells" / f"{name}.png"

    def write(self, name: str, result: CellResult | BaseResult) -> None:
        write_json(self._file(name), asdict(result))

    def base(self, study: Study) -> BaseResult | None:
        """What is known of the base; None where it is still to be scored."""
        stored = self._read(BASE, study.recipe)
        return BaseResult(**stored) if stored else None

    def cell(self, cell: Cell) -> CellResult | None:
        """A finished cell; None where it is still to be run. RecipeError where it was run with other settings."""
        stored = self._read(cell.name, cell.recipe)
        return CellResult(**stored) if stored else None

    def _read(self, name: str, recipe: Recipe) -> dict[str, Any] | None:
        path = self._file(name)
        if not path.is_file():
            return None
        stored = json.loads(path.read_text())
        if stored["recipe"] != recipe.model_dump(mode="json"):
            raise RecipeError(
                f"{path} was made with other settings than the study has now: choose another folder with --out, "
                "or remove the file"
            )
        return stored

    def _file(self, name: str) -> Path:
        return self.path / "cells" / f"{name}.json"
