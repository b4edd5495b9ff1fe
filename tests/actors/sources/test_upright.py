"""What a viewer shows is what is trained on: turned, scaled to 8 bits, over a ground."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from actors.sources.picture import open_picture, read_picture
from common.errors import BrokenImageError

RED, WHITE = (200, 30, 30), (255, 255, 255)


def shown(image: Image.Image, kind: str = "png", ground: str = "white", **save: Any) -> np.ndarray:
    """[H, W, 3], after a file of the kind."""
    file = BytesIO()
    image.save(file, kind, **save)
    return np.asarray(open_picture("x", file, ground=ground))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_a_turned_picture_is_shown_upright(orientation: int, kind: str) -> None:
    stored = Image.fromarray(np.random.default_rng(0).integers(256, size=(6, 10, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    marked = stored.copy()
    marked.getexif()[ExifTags.Base.Orientation] = orientation
    expected = np.asarray(ImageOps.exif_transpose(marked))
    options = {"lossless": True} if kind == "webp" else {}
    np.testing.assert_array_equal(shown(stored, kind, exif=exif, **options), expected)


def test_a_photo_held_upright_has_its_sky_at_the_top() -> None:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :64] = (60, 120, 255)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", exif=exif)
    crop = read_picture("x", file, 32)
    assert crop[2].mean(axis=0)[2] > 200
    assert crop[-3].mean(axis=0)[2] < 50


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish", b"Exif\0\0"])
def test_a_picture_with_broken_or_odd_exif_data_is_shown_as_it_lies(exif: bytes) -> None:
    assert shown(Image.new("RGB", (10, 6), RED), "jpeg", exif=exif).shape == (6, 10, 3)
    odd = Image.Exif()
    odd[ExifTags.Base.Orientation] = 77
    assert shown(Image.new("RGB", (10, 6), RED), "jpeg", exif=odd).shape == (6, 10, 3)


@pytest.mark.parametrize(("kind", "mode"), [("png", "I;16"), ("tiff", "I;16"), ("tiff", "I;16B"), ("ppm", "I")])
def test_sixteen_bits_are_scaled_to_eight(kind: str, mode: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(">u2" if mode == "I;16B" else np.uint16)[None].repeat(4, 0)
    image = Image.fromarray(ramp.astype(np.int32)) if mode == "I" else Image.fromarray(ramp)
    assert (shown(image, kind)[0, :, 0] == np.arange(256)).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0)])
def test_floats_are_read_between_0_and_1_or_0_and_255(low: float, high: float) -> None:
    ramp = np.linspace(low, high, 256, dtype=np.float32)[None].repeat(4, 0)
    assert (shown(Image.fromarray(ramp), "tiff")[0, :, 0] == np.arange(256)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 300.0])
def test_numbers_of_no_known_range_are_refused(value: float) -> None:
    with pytest.raises(BrokenImageError, match=r"its numbers go from .* can be read"):
        shown(Image.fromarray(np.full((4, 4), value, np.float32)), "tiff")
    with pytest.raises(BrokenImageError, match=r"its numbers go from .*: 0 to 65535 can be read"):
        shown(Image.fromarray(np.full((4, 4), 70000, np.int32)), "tiff")


def logo() -> Image.Image:
    """Red on what is transparent, and black below: dropping alpha would show it."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = (*RED, 255)
    return Image.fromarray(pixels)


def palette() -> tuple[Image.Image, dict]:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, *RED])
    image.paste(1, (2, 2, 6, 6))
    return image, {"transparency": 0}


def palette_of_alphas() -> tuple[Image.Image, dict]:
    return palette()[0], {"transparency": bytes([0, 255])}


def colour_key() -> tuple[Image.Image, dict]:
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste(RED, (2, 2, 6, 6))
    return image, {"transparency": (0, 0, 0)}


@pytest.mark.parametrize("ground", ["white", "black", "#0000ff"])
@pytest.mark.parametrize("made", [lambda: (logo(), {}), palette, palette_of_alphas, colour_key])
def test_a_transparent_picture_lies_on_the_ground(made: Any, ground: str) -> None:
    image, save = made()
    pixels = shown(image, ground=ground, **save)
    assert tuple(pixels[0, 0]) == {"white": WHITE, "black": (0, 0, 0), "#0000ff": (0, 0, 255)}[ground]
    assert tuple(pixels[4, 4]) == RED


def test_grey_pictures_with_alpha_lie_on_the_ground() -> None:
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[2:6, 2:6] = (90, 255)
    pixels[7] = (100, 128)
    both = shown(Image.fromarray(pixels))
    assert both[0, 0].tolist() == [255] * 3
    assert both[4, 4].tolist() == [90] * 3
    assert np.abs(both[7, 0].astype(int) - 177).max() <= 1  # half of 100, half of 255
    key = np.full((8, 8), 7, np.uint16)
    key[2:6, 2:6] = 65535
    sixteen = shown(Image.fromarray(key), ground="black", transparency=7)
    assert (sixteen[0, 0, 0], sixteen[4, 4, 0]) == (0, 255)
    assert shown(Image.fromarray(key), transparency=7)[0, 0, 0] == 255


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "L", "1", "YCbCr", "P", "RGB", "LA"])
def test_opaque_pictures_of_other_modes_have_the_bytes_of_a_plain_conversion(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(256, size=(9, 9, 3), dtype=np.uint8))
    image = noise.convert(mode)
    kind = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    np.testing.assert_array_equal(shown(image, kind), np.asarray(image.convert("RGB")))
