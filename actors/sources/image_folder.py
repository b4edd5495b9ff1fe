"""Pictures in one sub-folder a class."""

from pathlib import Path

from actors.sources.picture import SUFFIXES, read_picture
from actors.sources.split import Split, chosen_indices
from common.config.data import ImageFolderSource
from common.errors import DataError
from common.paths import resolve
from common.protocols import ClassFormat, SourceImage


class ImageFolder:
    """Class ids follow the sorted names of the sub-folders; images are listed once, read one by one."""

    def __init__(self, spec: ImageFolderSource, conditions: ClassFormat, image_size: int, split: Split):
        self._conditions = conditions
        self._root = resolve(spec.path)
        self._image_size = image_size
        if not self._root.is_dir():
            raise DataError(f"source.path is {self._root}, which is no folder: name a folder of class folders")
        names = class_names(self._root)
        self.num_classes = len(names)
        self.class_names = tuple(names)
        files = [(path, label) for label, name in enumerate(names) for path in pictures_below(self._root / name)]
        self._files = [files[index] for index in chosen_indices(len(files), spec, split)]
        if not self._files:
            raise DataError(
                f"source.path {self._root} has no images for the {split} split: put pictures "
                f"({', '.join(sorted(SUFFIXES))}) into one sub-folder a class"
                + (", and set source.held_out_fraction above 0" if split == "held_out" else "")
            )

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> SourceImage:
        path, label = self._files[index]
        name = str(path.relative_to(self._root))
        return SourceImage(name, read_picture(name, path, self._image_size), self._conditions.of_class(label))


def class_names(root: Path) -> list[str]:
    """The names of the class folders; a name's place in the list is its class id."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in `folder` and below, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
