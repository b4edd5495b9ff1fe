"""Pictures in one sub-folder a class."""

from actors.sources.class_folders import find_classes
from actors.sources.picture import SUFFIXES, picture_size, read_picture
from actors.sources.split import Split, chosen_indices
from common.config.data import ImageFolderSource
from common.errors import DataError
from common.paths import resolve
from common.protocols import ClassFormat, SourceImage
from common.text import shown_name


class ImageFolder:
    """Class ids as `class_folders` gives them; images are listed once, read one by one."""

    def __init__(self, spec: ImageFolderSource, conditions: ClassFormat, image_size: int, split: Split):
        self._conditions = conditions
        self._image_size = image_size
        self._ground = spec.ground
        root = resolve(spec.path)
        if not root.is_dir():
            raise DataError(f"source.path is {root}, which is no folder: name a folder of class folders")
        self.found = find_classes(root, spec.split)
        self.class_names = tuple(self.found.names)
        self.num_classes = len(self.class_names)
        files = [(path, label) for label, paths in enumerate(self.found.pictures) for path in paths]
        self._files = [files[index] for index in chosen_indices(len(files), spec, split)]
        if not self._files:
            raise DataError(
                f"source.path {shown_name(root / (self.found.split or ''))} has no images for the {split} split: "
                f"put pictures ({', '.join(sorted(SUFFIXES))}) into one sub-folder a class"
                + (", and set source.held_out_fraction above 0" if split == "held_out" else "")
            )

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> SourceImage:
        path, label = self._files[index]
        name = self.found.name_of(path)
        pixels = read_picture(name, path, self._image_size, ground=self._ground)
        return SourceImage(name, pixels, self._conditions.of_class(label), self.class_names[label])

    def size_of(self, index: int) -> tuple[int, int] | None:
        """Width and height of a picture's file; None where it is broken."""
        return picture_size(self._files[index][0])
