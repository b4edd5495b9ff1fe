"""The layout of pictures in the folder of `sample`. Letters: N pictures, H, W, C pixels and channels."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image

from actors.evaluation.pictures import grid, save_panels
from common.atomic import replacing
from common.errors import DataError
from deploy.sampling.prompts import Prompt

GRID = "grid.png"
COLUMNS, NUM_SHOWN = 10, 100


class Layout(Protocol):
    def picture(self, index: int) -> Path:
        """The path of a sample index's picture."""

    def begin(self) -> None:
        """Write what does not depend on the pictures."""

    def finish(self) -> Path:
        """Write what is made from all pictures, and return the path to look at first."""


@dataclass(frozen=True)
class Flat:
    """000000.png …, samples.npz, and grid.png of the first hundred, or of the first ten of each prompt."""

    folder: Path
    num_pictures: int
    label_N: np.ndarray | None  # int64
    title: str
    prompts: Sequence[Prompt] = ()

    def picture(self, index: int) -> Path:
        return self.folder / f"{index:06d}.png"

    def begin(self) -> None:
        pass

    def finish(self) -> Path:
        pictures = [self.picture(index) for index in range(self.num_pictures)]
        write_npz(self.folder / "samples.npz", pictures, self.label_N)
        save_panels(self.folder / GRID, [(self.title, self._overview(pictures))])
        return self.folder / GRID

    def _overview(self, pictures: Sequence[Path]) -> np.ndarray:
        """The grid; where prompts have several pictures, a row each with the prompt beside it."""
        if not self.prompts:
            return grid(_read_all(pictures[:NUM_SHOWN]), COLUMNS)
        of_each = len(pictures) // len(self.prompts)
        in_row = min(of_each, COLUMNS)
        shown = [
            (prompt.text, pictures[place * of_each + number])
            for place, prompt in enumerate(self.prompts[: NUM_SHOWN // in_row])
            for number in range(in_row)
        ]
        texts, paths = zip(*shown, strict=True)
        return grid(_read_all(paths), COLUMNS if of_each == 1 else in_row, texts)


class GenEval:
    """The folders that GenEval's evaluate_images.py reads: one per prompt, 00000/ …, with metadata.jsonl (the
    prompt's own line), samples/00000.png … and grid.png.
    """

    def __init__(self, folder: Path, prompts: Sequence[Prompt], per_prompt: int):
        if not all(prompt.is_json for prompt in prompts):
            raise DataError(
                "--layout geneval needs the lines of GenEval's evaluation_metadata.jsonl, for the evaluator, and "
                "--prompts is a plain text file: name a .jsonl file, or leave --layout out"
            )
        self._folder = folder
        self._prompts = prompts
        self._per_prompt = per_prompt

    def picture(self, index: int) -> Path:
        prompt, number = divmod(index, self._per_prompt)
        return self._of(prompt) / "samples" / f"{number:05d}.png"

    def begin(self) -> None:
        for index, prompt in enumerate(self._prompts):
            with replacing(self._of(index) / "metadata.jsonl") as temporary:
                temporary.write_text(prompt.line + "\n", encoding="utf-8")

    def finish(self) -> Path:
        for prompt in range(len(self._prompts)):
            first = prompt * self._per_prompt
            pixels_NHWC = _read_all([self.picture(first + number) for number in range(self._per_prompt)])
            save_png(self._of(prompt) / GRID, grid(pixels_NHWC, ceil(sqrt(self._per_prompt))))
        return self._folder

    def _of(self, prompt: int) -> Path:
        return self._folder / f"{prompt:05d}"


def save_png(path: Path, pixels_HWC: np.ndarray) -> None:
    """Write a PNG, complete or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(pixels_HWC).save(temporary, format="png")


def write_npz(path: Path, pictures: Sequence[Path], label_N: np.ndarray | None) -> None:
    """Write all pictures to one file, in the ADM evaluators' format, with one picture in memory at a time.

    It contains `arr_0`, uint8 [N, H, W, 3], from the PNG files, and `labels`, int64 [N], if given.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "arr_0") as file:
            H, W, C = _read(pictures[0]).shape
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(pictures), H, W, C)}
            np.lib.format.write_array_header_1_0(file, header)
            for picture in pictures:
                pixels_HWC = _read(picture)
                assert pixels_HWC.shape == (H, W, C), f"{picture} is of another size than {pictures[0]}"
                file.write(pixels_HWC.tobytes())
        if label_N is not None:
            with _member(archive, "labels") as file:
                np.lib.format.write_array(file, label_N)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A new member; a plain ZipInfo has no time, so equal pictures give equal archives. It may exceed 4 GB."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _read_all(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([_read(path) for path in paths])


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
