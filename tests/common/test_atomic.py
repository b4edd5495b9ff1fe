"""Files are complete or absent."""

import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.atomic import append_line, replacing, storage_problem, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["state.txt"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.txt"]


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"steps": 1})
    write_json(path, {"steps": [2, 3]})
    assert json.loads(path.read_text()) == {"steps": [2, 3]}
    assert path.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        write_json(path, {"steps": object()})
    assert json.loads(path.read_text()) == {"steps": [2, 3]}
    assert names(tmp_path) == ["summary.json"]


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """A limit that the kernel keeps, as a full disk would."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, 1)
    with no_file_above(1000), pytest.raises(OSError, match="File too large") as caught:
        write_json(path, "x" * 5000)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert (names(tmp_path), json.loads(path.read_text())) == (["state.json"], 1)
    assert storage_problem(caught.value) == (
        f"{path} cannot be used (File too large): make room, or name another place"
    )


def test_a_name_that_is_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        write_json(tmp_path / "taken", 1)
    assert storage_problem(caught.value) == (
        f"{tmp_path / 'taken'} cannot be used (Is a directory): name a place that can be used"
    )
    write_json(tmp_path / "file", 1)
    for place, reason in (("file/x", "a file is in the way"), ("file/x/y", "Not a directory")):
        with pytest.raises((FileExistsError, NotADirectoryError)) as below:
            write_json(tmp_path / place, 1)
        assert f"cannot be used ({reason}): name a place" in str(storage_problem(below.value))


def test_an_error_of_reading_keeps_the_name_of_what_was_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "copy") as temporary:
        temporary.write_text((tmp_path / "gone").read_text())
    assert caught.value.filename == str(tmp_path / "gone")


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, "one")
    with no_file_above(10), pytest.raises(OSError, match=r"No space left|File too large"):
        append_line(path, "two two two two")
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), TimeoutError(), OSError("words alone")])
def test_other_errors_are_no_problem_of_storage(error: OSError) -> None:
    assert storage_problem(error) is None
