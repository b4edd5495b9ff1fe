"""What studies leave in their folder: a JSON file and a picture a finished cell.

A cell's files are named by what it depends on, so that studies in one folder share the cells they have in common.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.atomic import write_json
from deploy.ablation.study import Cell

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class CellResult:
    """A cell that was trained and scored."""

    settings: dict[str, Any]  # all that it depends on
    seconds: float  # of the training, wall clock
    steps: list[dict[str, Any]]  # what each step measured
    scores: Numbers


class StudyFolder:
    def __init__(self, path: Path):
        self.path = path

    def picture(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.png"

    def write(self, cell: Cell, result: CellResult) -> None:
        write_json(self._file(cell), asdict(result))

    def result(self, cell: Cell) -> CellResult | None:
        """None where the cell is still to be run."""
        path = self._file(cell)
        return CellResult(**json.loads(path.read_text())) if path.is_file() else None

    def _file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.json"
