"""Noto emoji: one picture that holds them all, and an index of their names and classes beside it.

`deploy/recipes/emoji/make.py` makes both files. Pictures of one concept (an emoji, its skin tones, the man, the
woman and the person who does it) look alike and are trained on or held out together.
"""

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from actors.sources.picture import open_picture
from actors.sources.split import Split, split_indices
from common.config.data import EmojiSource
from common.errors import BrokenImageError, DataError
from common.paths import resolve
from common.protocols import CaptionFormat, ClassFormat, SourceImage

ATLAS, INDEX = "atlas.webp", "index.json"
COLUMNS = ("name", "category", "subcategory", "concept", "variant")

TONES = {
    "1f3fb": "light skin",
    "1f3fc": "medium light skin",
    "1f3fd": "medium skin",
    "1f3fe": "medium dark skin",
    "1f3ff": "dark skin",
}

# What points somewhere or is written reads wrong in a mirror; so does half of what people do with their hands.
ONE_WAY = {"Symbols", "Flags", "Objects", "Component"}


class Picture(NamedTuple):
    name: str
    category: str
    subcategory: str
    concept: str
    variant: str  # code points of skin tones

    @property
    def caption(self) -> str:
        return " ".join([self.name, *(TONES[tone] for tone in self.variant.split("-") if tone)])


class Emoji:
    """Conditioned on classes, or on names as captions: whichever format is given."""

    def __init__(
        self,
        spec: EmojiSource,
        image_size: int,
        split: Split,
        *,
        classes: ClassFormat | None = None,
        captions: CaptionFormat | None = None,
    ):
        size, pictures, self._atlas = _read(resolve(spec.path))
        if image_size != size:
            raise DataError(
                f"image_size is {image_size}, but the pictures of source.path have {size}: set image_size={size}, "
                f"or make others with deploy/recipes/emoji/make.py"
            )
        self.pictures = pictures
        kinds = [getattr(picture, spec.classes) for picture in pictures]
        self.class_names = tuple(dict.fromkeys(kinds))
        self.num_classes = len(self.class_names)
        if classes is not None:
            ids = {name: number for number, name in enumerate(self.class_names)}
            self._conditions = [classes.of_class(ids[kind]) for kind in kinds]
            self._texts = kinds
        else:
            assert captions is not None, "one of the two formats"
            captions.require_encoder(spec.text_encoder)
            self._texts = [picture.caption for picture in pictures]
            features = captions.encode(self._texts, spec.text_encoder)
            self._conditions = [captions.of_caption(each) for each in features]
        chosen = _of_split(pictures, spec, split)
        mirrored = spec.mirrored and split == "train"
        twins = [place for place in chosen if mirrored and pictures[place].category not in ONE_WAY]
        self.num_mirrored = len(twins)
        self._places = [(place, False) for place in chosen] + [(place, True) for place in twins]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> SourceImage:
        place, mirrored = self._places[index]
        pixels = self._atlas[place]
        picture = self.pictures[place]
        words = [f"emoji/{place:04d}", picture.name, picture.variant, "mirrored" if mirrored else ""]
        return SourceImage(
            image_id=" ".join(word for word in words if word),
            pixels=np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels,
            condition=self._conditions[place],
            text=self._texts[place],
        )


def _of_split(pictures: list[Picture], spec: EmojiSource, split: Split) -> list[int]:
    """Places of the split's pictures, whole concepts, the same share of each sub-category."""
    concepts: dict[str, list[str]] = defaultdict(list)
    home = {picture.concept: picture.subcategory for picture in reversed(pictures)}
    for concept, subcategory in sorted(home.items()):
        concepts[subcategory].append(concept)
    chosen = {
        names[index]
        for number, (_, names) in enumerate(sorted(concepts.items()))
        for index in split_indices(len(names), spec.held_out_fraction, spec.split_seed + number, split)
    }
    return [place for place, picture in enumerate(pictures) if picture.concept in chosen]


@cache
def _read(folder: Path) -> tuple[int, list[Picture], np.ndarray]:
    """Pixels of a side, the pictures and their pixels uint8 [N, size, size, 3]."""
    remedy = "make it with deploy/recipes/emoji/make.py"
    try:
        index = json.loads((folder / INDEX).read_text())
        size, columns = int(index["size"]), tuple(index["columns"])
        pictures = [Picture(**dict(zip(columns, row, strict=True))) for row in index["pictures"]]
    except OSError as error:
        raise DataError(f"source.path: {folder / INDEX} cannot be read ({error.strerror}): {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"source.path: {folder / INDEX} is no index of emoji ({error!r}): {remedy}") from None
    try:
        atlas = np.asarray(open_picture(ATLAS, folder / ATLAS))
    except BrokenImageError as error:
        raise DataError(f"source.path: {folder / ATLAS}: {error.reason}; {remedy}") from None
    rows, columns_of_pictures = atlas.shape[0] // size, atlas.shape[1] // size
    if rows * columns_of_pictures < len(pictures):
        raise DataError(
            f"source.path: {folder / ATLAS} has room for {rows * columns_of_pictures} pictures of {size} px and "
            f"{INDEX} names {len(pictures)}: {remedy}"
        )
    tiles = atlas[: rows * size, : columns_of_pictures * size].reshape(rows, size, columns_of_pictures, size, 3)
    return size, pictures, tiles.transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)[: len(pictures)]
