"""Which folders are classes, in which order, and what is passed over."""

import os
from pathlib import Path

import pytest
from PIL import Image

from actors.sources.class_folders import find_classes
from actors.sources.listing_text import classes_text, listing_notes
from common.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    return root


def pictures(root: Path, split: str | None = None) -> dict[str, list[str]]:
    found = find_classes(root, split)
    named = [[found.name_of(path) for path in paths] for paths in found.pictures]
    return dict(zip(found.names, named, strict=True))


def test_what_computers_leave_behind_and_empty_folders_are_no_classes_and_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "ant/0.png", "bee/0.png", "bee/._0.png", "bee/.ipynb_checkpoints/0-checkpoint.png")
    fill(tmp_path, "__MACOSX/ant/0.png", ".ipynb_checkpoints/0.png", "@eaDir/0.png", "lost+found/0.png")
    (tmp_path / "bee" / "notes.txt").touch()
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").touch()
    assert pictures(tmp_path) == {"ant": ["ant/0.png"], "bee": ["bee/0.png"]}
    assert list(listing_notes(find_classes(tmp_path))) == [
        "passed over: .ipynb_checkpoints, @eaDir, __MACOSX and 2 more (hidden, or left behind by a computer)",
        "passed over: empty, words (no pictures)",
    ]


def test_folders_named_by_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{name}/0.png" for name in ("0", "1", "2", "10", "11", "007")))
    found = find_classes(tmp_path)
    assert found.names == ("0", "1", "2", "007", "10", "11")
    assert classes_text(found.names) == "6 classes (0, 1, 2, 007, 10 and 1 more)"
    assert list(listing_notes(found)) == ["class ids follow the numbers that are the folders' names"]


def test_other_names_are_in_the_order_of_text_which_is_said_where_numbers_would_differ(tmp_path: Path) -> None:
    fill(tmp_path, "c2/0.png", "c10/0.png", "Zoo/0.png", "1e3/0.png", "²/0.png")
    found = find_classes(tmp_path)
    assert found.names == ("1e3", "Zoo", "c10", "c2", "²")
    assert list(listing_notes(found)) == ["class ids follow the names as text, not the numbers in them"]


@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_of_folders_named_after_splits_train_is_read(train: str, tmp_path: Path) -> None:
    fill(tmp_path, f"{train}/n01/0.png", f"{train}/n02/0.png", "val/n01/0.png", "val/n02/1.png")
    (tmp_path / "annotations").mkdir()
    assert pictures(tmp_path) == {"n01": [f"{train}/n01/0.png"], "n02": [f"{train}/n02/0.png"]}
    assert list(listing_notes(find_classes(tmp_path))) == [f"read from the folder of the split {train}"]


def test_the_split_asked_for_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "train/n01/0.png", "val/n01/7.png", "odd/n01/9.png")
    assert pictures(tmp_path, "val") == {"n01": ["val/n01/7.png"]}
    assert pictures(tmp_path, "odd") == {"n01": ["odd/n01/9.png"]}
    with pytest.raises(DataError, match=r"no folder of the split test, but odd, train, val: name one of them"):
        find_classes(tmp_path, "test")


def test_splits_without_train_need_a_name(tmp_path: Path) -> None:
    fill(tmp_path, "test/n01/0.png", "val/n01/0.png")
    with pytest.raises(DataError, match=r"has the splits test, val and no train: name the one to read"):
        find_classes(tmp_path)


def test_a_class_of_trains_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "train/steam/0.png", "car/0.png")
    assert pictures(tmp_path) == {"car": ["car/0.png"], "train": ["train/steam/0.png"]}


def test_links_that_point_nowhere_or_in_circles_end_nothing(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "ant/0.png", "bee/0.png")
    elsewhere = fill(tmp_path / "elsewhere", "0.png")
    (root / "cat").symlink_to(elsewhere)
    (root / "all").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "self").symlink_to(root / "self")
    (root / "gone").symlink_to(tmp_path / "gone")
    (root / "ant" / "back").symlink_to(root)
    (root / "ant" / "gone.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(root / "bee" / "pipe.png")
    assert pictures(root) == {"ant": ["ant/0.png", "ant/gone.png"], "bee": ["bee/0.png"], "cat": ["cat/0.png"]}
    assert find_classes(root).passed_over == {
        "above": "a link back to a folder that holds it",
        "all": "a link back to a folder that holds it",
        "ant/back": "a link to a folder",
        "bee/pipe.png": "not a regular file",
    }


def test_a_class_folder_that_cannot_be_listed_is_refused_because_ids_would_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "ant/0.png", "bee/0.png")
    scandir = os.scandir

    def forbidding(path: Path):
        if str(path).endswith("ant"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(DataError, match=r"ant cannot be listed: Permission denied"):
        find_classes(tmp_path)


def test_names_that_are_not_utf_8_are_shown_by_their_bytes(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/b\xeate")
    os.mkdir(folder)
    Image.new("RGB", (8, 8)).save(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    found = find_classes(tmp_path)
    assert [found.name_of(path) for path in found.pictures[0]] == ["b\\xeate/caf\\xe9.png"]
    assert classes_text(found.names) == "1 class (b\\xeate)"
