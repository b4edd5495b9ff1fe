"""Pictures in a folder or an `.npz`."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.evaluation import picture_files
from actors.evaluation.picture_files import find_pictures
from common.errors import DataError

SHADES_NHWC = np.zeros((5, 4, 6, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]


@pytest.fixture(autouse=True)
def two_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "BATCH", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `sample` leaves it: pictures 000000.png … and an overview."""
    for index, pixels in enumerate(SHADES_NHWC):
        Image.fromarray(pixels).save(tmp_path / f"{index:06d}.png")
    Image.fromarray(np.full((50, 50, 3), 99, np.uint8)).save(tmp_path / "grid.png")
    return tmp_path


def read(path: Path) -> list[np.ndarray]:
    return list(find_pictures(path).batches())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_in_batches(save, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    save(path, arr_0=SHADES_NHWC, labels=np.arange(5) % 3)
    files = find_pictures(path)
    assert files.num_pictures == 5
    assert files.label_N is not None
    assert files.label_N.tolist() == [0, 1, 2, 0, 1]
    batches = list(files.batches())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), SHADES_NHWC)
    np.testing.assert_array_equal(files.first(1), SHADES_NHWC[:1])


def test_an_archive_without_labels_has_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", SHADES_NHWC)  # as ADM's are written
    files = find_pictures(tmp_path / "samples.npz")
    assert (files.num_pictures, files.label_N) == (5, None)


def test_a_folder_is_read_by_name_without_its_overview(folder: Path) -> None:
    files = find_pictures(folder)
    assert (files.num_pictures, files.label_N) == (5, None)
    batches = list(files.batches())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), SHADES_NHWC)


def test_folders_within_a_folder_are_read_too_and_grey_becomes_rgb(folder: Path) -> None:
    (folder / "more").mkdir()
    Image.fromarray(np.full((4, 6), 77, np.uint8)).save(folder / "more" / "0.png")
    last = read(folder)[-1][-1]
    np.testing.assert_array_equal(last, np.full((4, 6, 3), 77))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    Image.fromarray(SHADES_NHWC[0]).save(tmp_path / "grid.png")
    with pytest.raises(DataError, match="holds no PNG files: name a folder"):
        find_pictures(tmp_path)


def test_pictures_of_several_sizes_are_refused(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "000004.png")
    with pytest.raises(DataError, match=r"000004\.png is \(8, 8\) pixels and .*000000\.png is \(6, 4\)"):
        read(folder)


def test_a_broken_picture_is_named(folder: Path) -> None:
    (folder / "000003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000003\.png is not a readable image"):
        read(folder)


def test_a_path_that_is_nothing_or_no_archive_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path / "text.npz"):
        (tmp_path / "text.npz").write_text("no archive")
        with pytest.raises(DataError, match=f"{path} is neither a folder nor a readable .npz file"):
            find_pictures(path)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"mu": np.zeros(3)}, "holds mu.npy and no arr_0.npy: it has no pictures"),
        ({"arr_0": SHADES_NHWC.astype(float)}, r"arr_0 of .* is float64 \(5, 4, 6, 3\): pictures are uint8"),
        ({"arr_0": SHADES_NHWC[0]}, r"arr_0 of .* is uint8 \(4, 6, 3\): pictures are uint8"),
        ({"arr_0": SHADES_NHWC[:0]}, r"arr_0 of .* is uint8 \(0, 4, 6, 3\)"),
        ({"arr_0": SHADES_NHWC, "labels": np.zeros(4)}, r"holds 5 pictures and labels of shape \(4,\)"),
    ],
)
def test_an_archive_of_something_else_is_refused(
    arrays: dict[str, np.ndarray], sentence: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        find_pictures(tmp_path / "samples.npz")


def test_a_damaged_array_of_pictures_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (4, 8, 8, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(b"\0" * 100)
    with pytest.raises(DataError, match=r"arr_0 of .*x.npz is cut short or damaged"):
        list(find_pictures(path).batches())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"no array")
    with pytest.raises(DataError, match=r"arr_0 of .*x.npz cannot be read"):
        find_pictures(path)


def test_what_computers_leave_behind_is_no_picture_and_others_are_shown_as_viewers_do(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / ".ipynb_checkpoints" / "clear-checkpoint.png")
    (tmp_path / "._clear.png").write_bytes(b"resource fork")
    found = find_pictures(tmp_path)
    assert found.num_pictures == 1
    assert (found.first(1) == 255).all()
