"""What `init` sees in a folder of pictures: classes, how many pictures, how large."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from actors.sources.class_folders import ClassFolders, find_classes
from actors.sources.picture import SUFFIXES, picture_size
from common.errors import DataError
from common.image_shards import MANIFEST, read_manifest

NUM_LOOKED_AT = 64
MIN_PICTURES = 20


@dataclass(frozen=True)
class Found:
    kind: str  # of the recipe's source
    classes: tuple[str, ...]  # names by class id; shards may have none
    num_classes: int
    num_pictures: int
    side: int | None  # pixels: the median short side; of shards, the side


def look_at(folder: Path) -> Found:
    """Raises DataError, with what to do, where there is nothing that a class-conditional generator learns from."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise DataError(f"--from {folder} is {what}: name a folder with one sub-folder of pictures per class")
    found = _shards(folder) if (folder / MANIFEST).is_file() else _class_folders(folder)
    if found.num_pictures < MIN_PICTURES:
        raise DataError(
            f"--from {folder} has {found.num_pictures} pictures: a generator learns nothing from fewer than "
            f"{MIN_PICTURES}"
        )
    return found


def _shards(folder: Path) -> Found:
    manifest = read_manifest(folder)
    if manifest.conditioning != "label":
        raise DataError(
            f"--from {folder} holds captions, and init writes recipes for classes: start from "
            "deploy/recipes/llamagen_xl_t2i_tiny.yaml, or prepare with classes"
        )
    num_classes = max(len(manifest.classes), manifest.max_label + 1)
    return Found("parquet", manifest.classes, num_classes, manifest.num_rows, manifest.image_size)


def _class_folders(folder: Path) -> Found:
    found = find_classes(folder)
    if not found.names:
        raise DataError(f"--from {folder} {_without_classes(folder, found)}")
    paths = [path for files in found.pictures for path in files]
    return Found("image_folder", found.names, len(found.names), len(paths), _side(paths))


def _without_classes(folder: Path, found: ClassFolders) -> str:
    if found.loose:
        return (
            "has pictures and no sub-folders of pictures: move them into one sub-folder per class (one is enough "
            "where they are all of a kind)"
        )
    if any(path.suffix.lower() in (".tar", ".parquet") for path in folder.iterdir()):
        return "has tars or tables: run this first: python -m deploy prepare INPUT SHARDS --image-size 64"
    return f"has no pictures ({', '.join(sorted(SUFFIXES))}) in sub-folders, one per class"


def _side(paths: list[Path]) -> int | None:
    """The median short side of pictures spread over the list; None where none of them opens."""
    sizes = [picture_size(path) for path in paths[:: max(1, len(paths) // NUM_LOOKED_AT)]]
    sides = [min(size) for size in sizes if size]
    return int(median(sides)) if sides else None
