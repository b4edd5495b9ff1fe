"""The numbers of a stage's steps, a JSON line a step, and the curves that are drawn of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from deploy.reporting.svg_chart import Chart, Series, thinned
from learner.pretraining.loop import StageProgress

MIN_STEPS = 2  # for a curve


class LossLog:
    """FOLDER/NAME.jsonl while its stage runs. A resumed stage repeats steps: their older lines are dropped."""

    def __init__(self, folder: Path, name: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.jsonl"
        self._kept = list(read_steps(self._path))
        self._file: Any = None

    def record(self, progress: StageProgress) -> None:
        if self._file is None:
            self._file = self._path.open("w")
            for line in self._kept:
                if line["step"] < progress.step:
                    self._write(line)
        self._write({"step": progress.step, "loss": progress.loss, **progress.shown})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def read_steps(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; none where there is no file. A line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def charts_of(path: Path) -> list[Chart]:
    """A curve for each number of a stage's log."""
    steps = list(read_steps(path))
    if len(steps) < MIN_STEPS:
        return []
    xs = [line["step"] for line in steps]
    names = [name for name in steps[-1] if name != "step"]
    return [
        thinned(Chart(name[:1].upper() + name[1:], "", xs, [Series(name, [line.get(name) for line in steps])]))
        for name in names
    ]
