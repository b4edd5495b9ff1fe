"""The one door for pictures: bounded memory, and a name and a reason for whatever is wrong."""

import os
import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.sources import picture
from actors.sources.picture import MOST_PIXELS, center_crop, open_picture, picture_size, read_picture
from common.errors import BrokenImageError


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to nothing."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 10)),
    ]
    parts = [struct.pack(">I", len(data)) + kind + data for kind, data in chunks]
    sums = [struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part + check for part, check in zip(parts, sums, strict=True))


@pytest.mark.parametrize("size", [(65000, 1), (1, 65000), (20000, 3)])
def test_a_thin_picture_is_cut_before_it_is_scaled(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert (center_crop(Image.new("RGB", size, "green"), 384) == (0, 128, 0)).all()
    assert max(width * height for width, height in sizes) == 384 * 384


@pytest.mark.parametrize("size", [(90, 7), (7, 90), (50, 31), (16, 16), (400, 2), (1, 300)])
def test_cut_before_or_after_scaling_the_middle_is_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8))
    after = center_crop(image, 16)
    monkeypatch.setattr(picture, "MOST_SCALED_PIXELS", 0)
    np.testing.assert_array_equal(center_crop(image, 16), after)


@pytest.mark.parametrize("size", [(20000, 20000), (2**31 - 1, 1), (13378, 13378)])
def test_a_picture_of_too_many_pixels_is_named_before_it_is_decoded(size: tuple[int, int]) -> None:
    tracemalloc.start()
    with pytest.raises(BrokenImageError, match=rf"^big .* it has .*more than {MOST_PIXELS:,}"):
        open_picture("big", BytesIO(png_header(*size)))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", png_header(9, 9)]
)
def test_bytes_that_are_hardly_a_picture_are_named(content: bytes) -> None:
    with pytest.raises(BrokenImageError, match=r"^x is not a readable image: .") as caught:
        read_picture("x", BytesIO(content), 8)
    assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), TypeError("odd"), AssertionError(), NotImplementedError("no")])
def test_whatever_a_decoder_raises_is_the_pictures_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Image.Image) -> None:
        raise error

    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    monkeypatch.setattr(Image.Image, "load", failing)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", failing)
    with pytest.raises(BrokenImageError, match=f"readable image: {str(error) or type(error).__name__}"):
        read_picture("x", file, 8)


def test_what_is_no_file_is_named_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    reasons = {}
    for name in ("pipe", "folder", "nowhere", "loop"):
        with pytest.raises(BrokenImageError) as caught:
            read_picture(name, tmp_path / f"{name}.png", 8)
        reasons[name] = caught.value.reason
        assert picture_size(tmp_path / f"{name}.png") is None
    assert reasons == {
        "pipe": "the file cannot be read: it is not a regular file",
        "folder": "the file cannot be read: it is not a regular file",
        "nowhere": "the file cannot be read: No such file or directory",
        "loop": "the file cannot be read: Too many levels of symbolic links",
    }


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret/path.png")

    monkeypatch.setattr(Image, "open", forbidden)
    (tmp_path / "a.png").touch()
    with pytest.raises(BrokenImageError, match=r"image: the file cannot be read: Permission denied$"):
        read_picture("a.png", tmp_path / "a.png", 8)
