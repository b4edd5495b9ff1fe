"""Pictures in one sub-folder a class. Pictures beside those folders have no class, and are skipped by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.sources.image_folder import class_names, pictures_below
from actors.sources.picture import SUFFIXES
from common.errors import DataError
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
                yield Item(name, (self.root / name).read_bytes(), self.label)
            except OSError as error:
                yield Skipped(name, f"the file cannot be read: {error.strerror}")


def find(options: PrepareOptions) -> Found:
    root = options.input
    if options.wants == "caption":
        raise DataError(f"{root} is a folder of class folders and has no captions: text needs tars or Parquet")
    classes = class_names(root)
    loose = sorted(path for path in root.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    groups = [(None, loose), *((label, pictures_below(root / name)) for label, name in enumerate(classes))]
    parts, sizes = [], [(name, 0) for name in classes]
    for label, paths in groups:
        names = tuple(str(path.relative_to(root)) for path in paths)
        sizes += [(name, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
        for start in range(0, len(names), FILES_PER_PART):
            parts.append(FolderPart(root, names[start : start + FILES_PER_PART], label))
    return Found("label", parts, listing_digest(sizes), {}, tuple(classes))
