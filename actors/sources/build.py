"""Opens the source that a recipe names."""

from actors.sources.conditions_only import classes_alone, prompts_alone
from actors.sources.emoji import Emoji
from actors.sources.image_folder import ImageFolder
from actors.sources.mnist import Mnist
from actors.sources.parquet import Parquet
from actors.sources.split import Split
from common.config.data import (
    ClassSource,
    EmojiSource,
    ImageFolderSource,
    MnistSource,
    ParquetSource,
    PromptSource,
)
from common.config.recipe import Recipe
from common.errors import BrokenImageError, DataError
from common.models.families import caption_format, class_format, condition_format
from common.protocols import ImageSource, SourceImage

NUM_TRIES = 16


def build_source(recipe: Recipe, split: Split) -> ImageSource:
    """The recipe's images of one split. DataError where there is nothing to read."""
    match recipe.source:
        case MnistSource() as spec:
            return Mnist(spec, class_format(recipe.policy), recipe.image_size, split)
        case EmojiSource() as spec:
            if recipe.policy.conditioning == "text":
                return Emoji(spec, recipe.image_size, split, captions=caption_format(recipe.policy))
            emoji = Emoji(spec, recipe.image_size, split, classes=class_format(recipe.policy))
            _require_classes(emoji.num_classes, f"classes (source.classes={spec.classes})", recipe)
            return emoji
        case ImageFolderSource() as spec:
            folder = ImageFolder(spec, class_format(recipe.policy), recipe.image_size, split)
            _require_classes(folder.num_classes, "class folders", recipe)
            return folder
        case ParquetSource() as spec:
            return Parquet(spec, condition_format(recipe.policy), recipe.image_size, split)
        case ClassSource() as spec:
            return classes_alone(spec, class_format(recipe.policy), recipe.policy.num_classes, split)
        case PromptSource() as spec:
            return prompts_alone(spec, caption_format(recipe.policy), split)


def _require_classes(num_classes: int, what: str, recipe: Recipe) -> None:
    known = recipe.policy.num_classes
    if num_classes > known:
        raise DataError(
            f"source.path has {num_classes} {what} and policy.num_classes is {known}: name the "
            f"folder of the classes that the generator was trained on"
        )


def require_readable(source: ImageSource) -> SourceImage:
    """An image of the source; DataError unless one of NUM_TRIES spread over it can be decoded."""
    step = max(1, len(source) // NUM_TRIES)
    for index in range(0, len(source), step):
        try:
            return source.read(index)
        except BrokenImageError as error:
            broken = error
    raise DataError(f"none of the images tried can be read; the last: {broken}")
