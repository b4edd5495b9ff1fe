"""From the bytes of a picture to the square crop that is trained on."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import BrokenImageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

# What Pillow's decoders are known to raise on damaged files.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_picture(name: str, file: Path | BytesIO, size: int, min_side: int = 0) -> np.ndarray:
    """The centre of a picture, uint8 [size, size, 3].

    BrokenImageError, with `name`, where it cannot be decoded or its short side is below `min_side`. The
    reason depends on the picture alone.
    """
    try:
        with Image.open(file) as image:
            if min(image.size) < min_side:
                raise BrokenImageError(name, f"its short side is {min(image.size)} px, less than {min_side}")
            return center_crop(image.convert("RGB"), size)
    except UnidentifiedImageError:  # Pillow's own words hold the address of the buffer
        raise BrokenImageError(name, "it is of no known picture format") from None
    except BrokenImageError:
        raise
    except _DECODER_ERRORS as error:
        raise BrokenImageError(name, str(error) or type(error).__name__) from None


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The ADM crop, uint8 [size, size, 3]: halve while twice the size, scale the short side, cut the middle."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize(
        (max(size, round(image.width * scale)), max(size, round(image.height * scale))),
        Image.Resampling.BICUBIC,
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))
