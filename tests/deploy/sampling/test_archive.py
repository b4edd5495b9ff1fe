"""The archive of all pictures."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.sampling.layout import write_npz


@pytest.fixture
def noise(tmp_path: Path) -> np.ndarray:
    """30 pictures of noise, written to PNG files."""
    pixels_NHWC = np.random.default_rng(0).integers(256, size=(30, 64, 48, 3), dtype=np.uint8)
    for path, pixels_HWC in zip(files(tmp_path), pixels_NHWC, strict=True):
        Image.fromarray(pixels_HWC).save(path)
    return pixels_NHWC


def files(folder: Path) -> list[Path]:
    return [folder / f"{index}.png" for index in range(30)]


def test_numpy_reads_the_pictures_and_their_labels(tmp_path: Path, noise: np.ndarray) -> None:
    write_npz(tmp_path / "all.npz", files(tmp_path), np.arange(30))
    with np.load(tmp_path / "all.npz") as read:
        assert sorted(read) == ["arr_0", "labels"]
        assert (read["arr_0"].dtype, read["labels"].dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(read["arr_0"], noise)
        assert read["labels"].tolist() == list(range(30))
    write_npz(tmp_path / "no_labels.npz", files(tmp_path), None)
    assert list(np.load(tmp_path / "no_labels.npz")) == ["arr_0"]


def test_equal_pictures_make_equal_archives(tmp_path: Path, noise: np.ndarray) -> None:
    for name in ("one.npz", "two.npz"):
        write_npz(tmp_path / name, files(tmp_path), None)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_few_pictures_are_in_memory_at_once(tmp_path: Path, noise: np.ndarray) -> None:
    write_npz(tmp_path / "first.npz", files(tmp_path)[:1], None)  # imports what it needs
    tracemalloc.start()
    write_npz(tmp_path / "all.npz", files(tmp_path), None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < noise.nbytes / 2


def test_a_broken_picture_leaves_no_archive(tmp_path: Path, noise: np.ndarray) -> None:
    files(tmp_path)[7].write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify image"):
        write_npz(tmp_path / "all.npz", files(tmp_path), None)
    assert list(tmp_path.glob("*npz*")) == list(tmp_path.glob(".*npz*")) == []
