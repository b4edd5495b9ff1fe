"""The results of studies in their folder: one JSON file and one picture per finished cell.

A cell's files are named after its settings, so studies in one folder share their common cells.
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

    settings: dict[str, Any]  # everything it depends on
    seconds: float  # of the training, wall clock
    steps: list[dict[str, Any]]  # each step's measurements
    scores: Numbers


class StudyFolder:
    def __init__(self, path: Path):
        self.path = path

    def picture(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.png"

    def write(self, cell: Cell, result: CellResult) -> None:
        write_json(self._file(cell), asdict(result))

    def result(self, cell: Cell) -> CellResult | None:
        """None if the cell has not been run."""
        path = self._file(cell)
        return CellResult(**json.loads(path.read_text())) if path.is_file() else None

    def _file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.json"
