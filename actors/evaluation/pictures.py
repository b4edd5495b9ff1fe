"""Picture grids for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.atomic import replacing

TITLE_HEIGHT, GAP, MIN_TILE = 18, 12, 48


def grid(pixels_NHWC: np.ndarray, columns: int) -> np.ndarray:
    """uint8 pictures [N, H, W, 3] as one, `columns` a row; small pictures are enlarged by whole factors."""
    factor = max(1, MIN_TILE // pixels_NHWC.shape[1])
    tiles = pixels_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)
    missing = -len(tiles) % columns
    tiles = np.concatenate([tiles, np.zeros((missing, *tiles.shape[1:]), tiles.dtype)])
    N, H, W, C = tiles.shape
    return tiles.reshape(N // columns, columns, H, W, C).swapaxes(1, 2).reshape(-1, columns * W, C)


def save_panels(path: Path, panels: Sequence[tuple[str, np.ndarray]]) -> None:
    """Write a PNG with titled pictures side by side."""
    width = sum(picture.shape[1] for _, picture in panels) + GAP * (len(panels) - 1)
    height = max(picture.shape[0] for _, picture in panels) + TITLE_HEIGHT
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for title, picture in panels:
        draw.text((left + 2, 3), title, fill="black")
        canvas.paste(Image.fromarray(picture), (left, TITLE_HEIGHT))
        left += picture.shape[1] + GAP
    with replacing(path) as temporary:
        canvas.save(temporary, format="png")
