"""Pictures in one sub-folder a class. Pictures beside those folders have no class, and are skipped by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.sources.class_folders import find_classes
from actors.sources.listing_text import classes_text, listing_notes
from actors.sources.picture import require_file
from common.errors import DataError
from common.text import shown_name
from deploy.prepare.items import Found, Item, Skipped, listing_digest
from deploy.prepare.options import PrepareOptions

FILES_PER_PART = 1000  # keeps what is sent to a worker small


@dataclass(frozen=True)
class FolderPart:
    root: Path
    files: tuple[str, ...]  # relative to the root
    label: int | None

    def count(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        for name in self.files[start:stop]:
            try:
                require_file(self.root / name)
                yield Item(shown_name(name), (self.root / name).read_bytes(), self.label)
            except OSError as error:
                yield Skipped(shown_name(name), f"the file cannot be read: {error.strerror}")


def find(options: PrepareOptions) -> Found:
    root = options.input
    if options.wants == "caption":
        raise DataError(f"{root} is a folder of class folders and has no captions: text needs tars or Parquet")
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


def _size(path: Path) -> int:
    """-1 for a link that points nowhere: it is skipped when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
