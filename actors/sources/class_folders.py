"""Which folders are classes, and which files below them are pictures.

    ROOT/ant/1.jpg …  ROOT/bee/deep/2.png …        a sub-folder per class
    ROOT/train/ant/1.jpg …  ROOT/val/ant/9.jpg …   the same in a folder per split

What computers leave behind (hidden names, `__MACOSX`, …) is passed over, and so are folders without a picture.
Each is named with the reason, because a folder too many or too few would move the class ids.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from actors.sources.picture import SUFFIXES
from common.errors import DataError
from common.text import shown_name

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
LEFT_BEHIND = {"__MACOSX", "__pycache__", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
LEFT = "hidden, or left behind by a computer"


@dataclass(frozen=True)
class ClassFolders:
    """What a look into ROOT found."""

    root: Path
    split: str | None  # the name of the folder that is read, where there is one per split
    names: tuple[str, ...]  # the classes' folder names; a name's place is its class id
    pictures: tuple[tuple[Path, ...], ...]  # per class, sorted
    loose: tuple[Path, ...]  # pictures beside the class folders: they have no class
    passed_over: dict[str, str] = field(default_factory=dict)  # names of folders and files: the reason

    def name_of(self, path: Path) -> str:
        """A picture's name, below ROOT."""
        return shown_name(path.relative_to(self.root))


def find_classes(root: Path, split: str | None = None) -> ClassFolders:
    """The classes below `root`; `split` names a folder in it (default: train, where its folders are splits).

    Class ids follow the sorted names, or the numbers where all names are numbers. DataError.
    """
    try:
        folder = _split_folder(root, split)
        return _classes_in(root, root / (folder or ""), folder)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be listed: {error.strerror}") from None


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is a computer's own: hidden, or known by name."""
    return name in LEFT_BEHIND or (name.startswith(".") and name not in (".", ".."))


def pictures_below(folder: Path, passed_over: dict[str, str], root: Path) -> tuple[Path, ...]:
    """The picture files in `folder` and below, sorted; what is passed over is added by its name below `root`."""
    return tuple(sorted(_pictures(folder, passed_over, root)))


def _classes_in(root: Path, top: Path, split: str | None) -> ClassFolders:
    passed_over: dict[str, str] = {}
    found: dict[str, tuple[Path, ...]] = {}
    entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    for name in (entry.name for entry in entries if _is_folder(entry)):
        if reason := _no_class(root, top / name):
            passed_over[_below(root, top / name)] = reason
        elif pictures := pictures_below(top / name, passed_over, root):
            found[name] = pictures
        else:
            passed_over[_below(root, top / name)] = "no pictures"
    names = sorted(found, key=lambda name: (int(name), name)) if _are_numbers(found) else list(found)
    loose = tuple(top / entry.name for entry in entries if _is_picture(entry.name) and os.path.isfile(entry.path))
    of_classes = tuple(found[name] for name in names)
    return ClassFolders(root, split, tuple(names), of_classes, loose, dict(sorted(passed_over.items())))


def _no_class(root: Path, folder: Path) -> str | None:
    """Why a folder is no class, by its name or place. OSError where it cannot be listed: ids would move."""
    if is_left_behind(folder.name):
        return LEFT
    os.scandir(folder).close()
    is_loop = folder.is_symlink() and root.resolve().is_relative_to(folder.resolve())
    return "a link back to a folder that holds it" if is_loop else None


def _pictures(top: Path, passed_over: dict[str, str], root: Path) -> Iterator[Path]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            passed_over[_below(root, folder)] = f"it cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            path = folder / entry.name
            if _is_folder(entry):
                if reason := _not_entered(entry):
                    passed_over[_below(root, path)] = reason
                else:
                    waiting.append(path)
            elif _is_picture(entry.name):
                # A link that points nowhere is a picture that cannot be read.
                if os.path.isfile(entry.path) or entry.is_symlink():
                    yield path
                else:
                    passed_over[_below(root, path)] = "not a regular file"


def _not_entered(entry: os.DirEntry) -> str | None:
    if is_left_behind(entry.name):
        return LEFT
    return "a link to a folder" if entry.is_symlink() else None


def _is_folder(entry: os.DirEntry) -> bool:
    """Links to folders are; a link to itself is not (DirEntry.is_dir would raise)."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _below(root: Path, path: Path) -> str:
    return shown_name(path.relative_to(root))


def _is_picture(name: str) -> bool:
    return not is_left_behind(name) and os.path.splitext(name)[1].lower() in SUFFIXES


def _are_numbers(names: Collection[str]) -> bool:
    return bool(names) and all(name.isascii() and name.isdigit() for name in names)


def _split_folder(root: Path, split: str | None) -> str | None:
    """The folder of the split to read; None where folders are classes."""
    folders = sorted(
        entry.name for entry in os.scandir(root) if _is_folder(entry) and not is_left_behind(entry.name)
    )
    if split is not None:
        if split in folders:
            return split
        raise DataError(f"{root} has no folder of the split {split}, but {_listed(folders)}: name one of them")
    if not any(name.lower() in SPLITS for name in folders):
        return None
    holding = [name for name in folders if next(_pictures(root / name, {}, root), None)]
    if not holding or any(name.lower() not in SPLITS for name in holding):
        return None
    train = next((name for name in holding if name.lower() in SPLITS[:2]), None)
    if train is None:
        raise DataError(
            f"{root} has the splits {_listed(holding)} and no train: name the one to read (source.split, or "
            "--split of `prepare`)"
        )
    return train


def _listed(names: list[str]) -> str:
    return ", ".join(shown_name(name) for name in names[:8]) or "no folders"
