"""Pictures in one sub-folder a class, or with captions beside them.

Pictures beside class folders have no class, and those without a text of their name have no caption: they are
skipped by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.sources.class_folders import find_classes, pictures_below
from actors.sources.listing_text import classes_text, listing_notes
from actors.sources.picture import require_file
from common.errors import DataError
from common.text import decoded, shown_name
from deploy.prepare.items import Found, Item, Skipped, listing_digest
from deploy.prepare.options import PrepareOptions

FILES_PER_PART = 1000  # keeps what is sent to a worker small


@dataclass(frozen=True)
class FolderPart:
    root: Path
    files: tuple[str, ...]  # relative to the root
    label: int | None
    captioned: bool = False  # by NAME.txt beside NAME.png

    def count(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        for name in self.files[start:stop]:
            try:
                require_file(self.root / name)
                picture = self.root / name
                caption = _caption(picture.with_suffix(".txt")) if self.captioned else None
                yield Item(shown_name(name), picture.read_bytes(), self.label, caption)
            except OSError as error:
                yield Skipped(shown_name(name), f"the file cannot be read: {error.strerror}")


def find(options: PrepareOptions) -> Found:
    root = options.input
    if options.wants == "caption":
        return _captioned(root, options.split)
    found = find_classes(root, options.split)
    groups = [(None, found.loose), *enumerate(found.pictures)]
    parts, sizes = [], [(name, 0) for name in found.names]
    for label, paths in groups:
        names = tuple(str(path.relative_to(root)) for path in paths)
        sizes += [(name, _size(path)) for name, path in zip(names, paths, strict=True)]
        for start in range(0, len(names), FILES_PER_PART):
            parts.append(FolderPart(root, names[start : start + FILES_PER_PART], label))
    classes = tuple(map(shown_name, found.names))
    notes = (classes_text(found.names), *listing_notes(found))
    return Found("label", parts, listing_digest(sizes), {}, classes, notes)


def _captioned(root: Path, split: str | None) -> Found:
    """All pictures of the split's folder (default: train, where there is one), at any depth."""
    inner = root / (split or "train")
    if split and not inner.is_dir():
        raise DataError(f"{root} has no folder {split}: name another with --split")
    paths = pictures_below(inner if inner.is_dir() else root, {}, root)
    texts = [path.with_suffix(".txt") for path in paths]
    if paths and not any(text.is_file() for text in texts):
        raise DataError(
            f"{root} has no captions: each picture needs a text of its name beside it, such as "
            f"{shown_name(texts[0].relative_to(root))}; or name tars or Parquet files"
        )
    names = tuple(str(path.relative_to(root)) for path in paths)
    sizes = [(name, _size(path)) for name, path in zip(names, paths, strict=True)]
    sizes += [(str(text.relative_to(root)), _size(text)) for text in texts]
    starts = range(0, len(names), FILES_PER_PART)
    parts = [FolderPart(root, names[start : start + FILES_PER_PART], None, captioned=True) for start in starts]
    return Found("caption", parts, listing_digest(sizes), {"caption": "NAME.txt"})


def _caption(path: Path) -> str | None:
    """None where the picture has none, which is then the reason to skip it."""
    return decoded(path.read_bytes()).strip() if path.is_file() else None


def _size(path: Path) -> int:
    """-1 for a link that points nowhere: it is skipped when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
