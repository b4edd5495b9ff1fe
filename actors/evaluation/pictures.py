"""Picture grids for people to look at.

Letters: N pictures or held-out images, S samples of an image, H, W, C pixels and channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.atomic import replacing

TITLE_HEIGHT, NAME_HEIGHT, GAP, MIN_TILE = 18, 14, 12, 96
MOST_NAME_WIDTH = 240  # of names at the left of rows

Panel = tuple[str, np.ndarray]  # title, and a picture uint8 [H, W, 3]


@dataclass(frozen=True)
class HeldOutPictures:
    """Held-out images, their reconstructions and their teacher-forced samples; all uint8."""

    source_NHWC: np.ndarray
    reconstruction_NHWC: np.ndarray  # by the tokenizer alone
    samples_NSHWC: np.ndarray  # decoded samples of the policy


def joined(parts: Sequence[HeldOutPictures]) -> HeldOutPictures:
    """All images of `parts`, in order."""
    return HeldOutPictures(
        *(np.concatenate(column) for column in zip(*(vars(part).values() for part in parts), strict=True))
    )


def held_out_panels(held_out: HeldOutPictures) -> list[Panel]:
    """Source, reconstruction and teacher-forced samples side by side, one row per image."""
    num_samples = held_out.samples_NSHWC.shape[1]
    return [
        ("source", grid(held_out.source_NHWC, 1)),
        ("reconstruction", grid(held_out.reconstruction_NHWC, 1)),
        (
            "teacher-forced samples",
            grid(held_out.samples_NSHWC.reshape(-1, *held_out.source_NHWC.shape[1:]), num_samples),
        ),
    ]


def free_running_panel(pixels_NHWC: np.ndarray, rows: int, names: Sequence[str] = ()) -> Panel:
    return "free-running samples", free_running_grid(pixels_NHWC, rows, names)


def free_running_grid(pixels_NHWC: np.ndarray, rows: int, names: Sequence[str] = ()) -> np.ndarray:
    """The first pictures, up to 8 per row, enough to fill `rows` rows."""
    columns = max(1, min(8, len(pixels_NHWC) // rows))
    return grid(pixels_NHWC[: rows * columns], columns, names[: rows * columns])


def grid(pixels_NHWC: np.ndarray, columns: int, names: Sequence[str] = ()) -> np.ndarray:
    """Tile uint8 pictures [N, H, W, 3], `columns` per row; small pictures are enlarged by whole factors.

    `names`, if any, one per picture, stand above them: once where all pictures of each column have the same. Where
    all pictures of each row have, they stand once at the left.
    """
    tiles = _tiled(pixels_NHWC, columns)
    if not names:
        return tiles
    of_rows = [list(names[start : start + columns]) for start in range(0, len(names), columns)]
    width = tiles.shape[1] // columns
    if columns > 1 and all(name == row[0] for row in of_rows for name in row):
        return np.concatenate(
            [_row_names([row[0] for row in of_rows], tiles.shape[0] // len(of_rows)), tiles], axis=1
        )
    if all(row == of_rows[0][: len(row)] for row in of_rows):
        return np.concatenate([_names(of_rows[0], columns, width), tiles])
    rows = np.split(tiles, len(of_rows))
    return np.concatenate(
        [part for row, own in zip(rows, of_rows, strict=True) for part in (_names(own, columns, width), row)]
    )


def _names(names: Sequence[str], columns: int, width: int) -> np.ndarray:
    """A white strip with the name of each tile, cut to its width; uint8 [NAME_HEIGHT, columns * width, 3]."""
    strip = Image.new("RGB", (columns * width, NAME_HEIGHT), "white")
    draw = ImageDraw.Draw(strip)
    for column, name in enumerate(names):
        draw.text((column * width + 2, 1), _fitted(name, width - 4, draw), fill="black")
    return np.asarray(strip)


def _row_names(names: Sequence[str], height: int) -> np.ndarray:
    """A white strip with the name of each row at its middle; uint8 [len(names) * height, W, 3]."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    fitted = [_fitted(name, MOST_NAME_WIDTH, measure) for name in names]
    strip = Image.new(
        "RGB", (max(int(measure.textlength(name)) for name in fitted) + GAP, len(names) * height), "white"
    )
    draw = ImageDraw.Draw(strip)
    for row, name in enumerate(fitted):
        draw.text((2, row * height + height // 2), name, fill="black", anchor="lm")
    return np.asarray(strip)


def _fitted(name: str, width: int, draw: ImageDraw.ImageDraw) -> str:
    text = name.encode("latin-1", "replace").decode("latin-1")  # the letters that Pillow's own font has
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text


def _tiled(pixels_NHWC: np.ndarray, columns: int) -> np.ndarray:
    factor = max(1, MIN_TILE // pixels_NHWC.shape[1])
    tiles = pixels_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)
    missing = -len(tiles) % columns
    tiles = np.concatenate([tiles, np.zeros((missing, *tiles.shape[1:]), tiles.dtype)])
    N, H, W, C = tiles.shape
    return tiles.reshape(N // columns, columns, H, W, C).swapaxes(1, 2).reshape(-1, columns * W, C)


def save_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Write a PNG with titled pictures side by side."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [max(picture.shape[1], int(measure.textlength(title)) + 4) for title, picture in panels]
    height = max(picture.shape[0] for _, picture in panels) + TITLE_HEIGHT
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(panels) - 1), height), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for (title, picture), width in zip(panels, widths, strict=True):
        draw.text((left + 2, 3), title, fill="black")
        canvas.paste(Image.fromarray(picture), (left, TITLE_HEIGHT))
        left += width + GAP
    with replacing(path) as temporary:
        canvas.save(temporary, format="png")
