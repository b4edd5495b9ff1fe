"""Whatever a picture file holds, as upright 8-bit RGB: turned as EXIF says, scaled to 8 bits, over a ground."""

import numpy as np
from PIL import ExifTags, Image, ImageColor

WHITE = "white"

_TURNS = {  # EXIF's orientation: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_rgb(image: Image.Image, ground: str = WHITE) -> Image.Image:
    """`image` decoded, as a viewer shows it over a `ground` of that colour (a name, or #rrggbb).

    Opaque 8-bit pictures keep their bytes. Raises what Pillow's decoders raise, and ValueError where the range of
    the numbers is not known.
    """
    image.load()  # some formats have their orientation behind the pixels
    turn = _TURNS.get(_orientation(image))
    eight_bits = _eight_bits(image)
    rgb = _over(eight_bits, ground) if eight_bits.has_transparency_data else eight_bits.convert("RGB")
    return rgb.transpose(turn) if turn is not None else rgb


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a picture with broken EXIF data is shown as it lies
        return 1
    return value if isinstance(value, int) else 1


def _over(image: Image.Image, ground: str) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    pixels = image.convert("RGBA")
    under = Image.new("RGB", image.size, ImageColor.getrgb(ground)[:3])
    under.paste(pixels.convert("RGB"), mask=pixels.getchannel("A"))
    return under


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey numbers of more than 8 bits as L (LA with a transparent grey); other modes as they are."""
    if image.mode.startswith("I"):
        return _of_whole_numbers(image)
    return _of_floats(image) if image.mode == "F" else image


def _of_whole_numbers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise ValueError(f"its numbers go from {values.min()} to {values.max()}: 0 to 65535 can be read")
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _of_floats(image: Image.Image) -> Image.Image:
    """Numbers from 0 to 1, or else from 0 to 255."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # NaN too
        raise ValueError(f"its numbers go from {low:g} to {high:g}: 0 to 1, or 0 to 255, can be read")
    return Image.fromarray(np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8))
