"""TensorBoard event files."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from deploy.runs.tracking.tracker import scalars


class TensorBoardTracker:
    def __init__(self, folder: Path):
        self._folder = folder
        self._writer = SummaryWriter(str(folder))

    def metrics(self, line: dict[str, Any]) -> None:
        self._scalars(line, "train")

    def evaluation(self, line: dict[str, Any]) -> None:
        self._scalars(line, "evaluation")

    def picture(self, step: int, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        name = "free_running" if path.stem.startswith("step-") else path.stem
        self._writer.add_image(f"samples/{name}", pixels, step, dataformats="HWC")

    def rewind(self, step: int) -> None:
        """TensorBoard then hides the later steps of earlier files."""
        self._writer.close()
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    def close(self, status: str) -> None:
        self._writer.close()

    def _scalars(self, line: dict[str, Any], prefix: str) -> None:
        for name, value in scalars(line, prefix).items():
            self._writer.add_scalar(name, value, line["step"])
