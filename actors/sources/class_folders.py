"""How a folder of class folders is listed, wherever it is read."""

from pathlib import Path

from actors.sources.picture import SUFFIXES


def class_names(root: Path) -> list[str]:
    """The names of the class folders; a name's place in the list is its class id."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in `folder` and below, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
