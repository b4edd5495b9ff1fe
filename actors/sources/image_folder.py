"""Pictures in one sub-folder a class."""

import numpy as np
from PIL import Image

from actors.sources.split import Split, split_indices
from common.config.data import ImageFolderSource
from common.errors import BrokenImageError, DataError
from common.paths import resolve
from common.protocols import SourceImage

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


class ImageFolder:
    """Class ids follow the sorted names of the sub-folders; images are listed once, read one by one."""

    def __init__(self, spec: ImageFolderSource, image_size: int, split: Split):
        self._root = resolve(spec.path)
        self._image_size = image_size
        if not self._root.is_dir():
            raise DataError(f"source.path is {self._root}, which is no folder: name a folder of class folders")
        classes = sorted(entry.name for entry in self._root.iterdir() if entry.is_dir())
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((self._root / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        kept = split_indices(len(files), spec.held_out_fraction, spec.split_seed, split)
        self._files = [files[index] for index in kept]
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
        try:
            with Image.open(path) as image:
                pixels = center_crop(image.convert("RGB"), self._image_size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BrokenImageError(name, str(error)) from None
        return SourceImage(name, pixels, {"label": np.int64(label)})


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The ADM crop, uint8 [size, size, 3]: halve while twice the size, scale the short side, cut the middle."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize(
        (max(size, round(image.width * scale)), max(size, round(image.height * scale))),
        Image.Resampling.BICUBIC,
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))
