"""Picture grids for people to look at.

Letters: N pictures or held-out images, S samples of an image, H, W, C pixels and channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.atomic import replacing

TITLE_HEIGHT, GAP, MIN_TILE = 18, 12, 48

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


def free_running_panel(pixels_NHWC: np.ndarray, rows: int) -> Panel:
    return "free-running samples", free_running_grid(pixels_NHWC, rows)


def free_running_grid(pixels_NHWC: np.ndarray, rows: int) -> np.ndarray:
    """The first pictures, up to 8 per row, enough to fill `rows` rows."""
    columns = max(1, min(8, len(pixels_NHWC) // rows))
    return grid(pixels_NHWC[: rows * columns], columns)


def grid(pixels_NHWC: np.ndarray, columns: int) -> np.ndarray:
    """Tile uint8 pictures [N, H, W, 3], `columns` per row; small pictures are enlarged by whole factors."""
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
