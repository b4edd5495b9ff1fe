"""From a picture's file to the square crop that is trained on. Every picture from outside is opened here."""

import errno
import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from actors.sources.upright import WHITE, upright_rgb
from common.errors import BrokenImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

MOST_PIXELS = 178_956_970  # of a picture: Pillow refuses more as well; 0.7 GB once decoded
MOST_SCALED_PIXELS = 1 << 26  # a longer and thinner picture is cut before it is scaled
REACH = 3  # pixels beyond its own place that scaling up looks at

warnings.filterwarnings("ignore", module=r"PIL\.")  # about pictures, one by one: what matters is told by name


def read_picture(name: str, file: Path | BytesIO, size: int, min_side: int = 0, ground: str = WHITE) -> np.ndarray:
    """The centre of a picture over `ground`, uint8 [size, size, 3].

    BrokenImageError, with `name`, where it cannot be decoded or its short side is below `min_side`. The reason
    depends on the picture alone.
    """
    return center_crop(open_picture(name, file, min_side, ground), size)


def open_picture(name: str, file: Path | BytesIO, min_side: int = 0, ground: str = WHITE) -> Image.Image:
    """The whole picture, upright, 8-bit RGB. BrokenImageError as `read_picture`."""
    try:
        if isinstance(file, Path):
            require_file(file)
        with Image.open(file) as image:
            if problem := _misfit(image.size, min_side):
                raise BrokenImageError(name, problem)
            return upright_rgb(image, ground)
    except UnidentifiedImageError:  # Pillow's own words hold the address of the buffer
        raise BrokenImageError(name, "it is of no known picture format") from None
    except BrokenImageError:
        raise
    except Image.DecompressionBombError:
        raise BrokenImageError(name, f"it has more than {MOST_PIXELS:,} pixels: scale it down") from None
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise BrokenImageError(name, _said(error)) from None


def picture_size(file: Path) -> tuple[int, int] | None:
    """Width and height as stored, from the header; None where it cannot be read."""
    try:
        require_file(file)
        with Image.open(file) as image:
            return image.size
    except Exception:  # as above
        return None


def require_file(path: Path) -> None:
    """OSError where it is not a regular file: a pipe would never end."""
    if not path.is_file():
        path.stat()  # says what it lacks
        raise OSError(errno.EINVAL, "it is not a regular file")


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The ADM crop, uint8 [size, size, 3]: halve while twice the size, scale the short side, cut the middle."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = max(size, round(image.width * scale)), max(size, round(image.height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MOST_SCALED_PIXELS:
        return np.asarray(_scaled_middle(image, (width, height), (left, top), size))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _scaled_middle(image: Image.Image, scaled: tuple[int, int], corner: tuple[int, int], size: int) -> Image.Image:
    """What `corner` and `size` cut out of the picture once it is `scaled`, but cut first."""
    starts, stops = [], []  # across and down, in pixels of the picture
    for side, scaled_side, start in zip(image.size, scaled, corner, strict=True):
        starts.append(start * side / scaled_side)
        stops.append((start + size) * side / scaled_side)
    left, top = (max(0, int(start) - REACH) for start in starts)
    right, bottom = (min(side, int(stop) + 1 + REACH) for side, stop in zip(image.size, stops, strict=True))
    part = image.crop((left, top, right, bottom))
    # One direction at a time: in both at once, Pillow's box gives other bytes.
    across = (starts[0] - left, 0, stops[0] - left, part.height)
    part = part.resize((size, part.height), Image.Resampling.BICUBIC, across)
    down = (0, starts[1] - top, size, stops[1] - top)
    return part.resize((size, size), Image.Resampling.BICUBIC, down)


def _misfit(size: tuple[int, int], min_side: int) -> str | None:
    if not min(size):
        return "it has no pixels"
    if min(size) < min_side:
        return f"its short side is {min(size)} px, less than {min_side}"
    if size[0] * size[1] > MOST_PIXELS:
        return f"it has {size[0]} x {size[1]} pixels, more than {MOST_PIXELS:,}: scale it down"
    return None


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"the file cannot be read: {error.strerror or os.strerror(error.errno)}"
    return str(error) or type(error).__name__
