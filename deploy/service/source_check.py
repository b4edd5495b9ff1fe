"""What `check` says of the images: how many, of which classes and sizes, and what is left out and why."""

from collections.abc import Iterator

from actors.sources.build import build_source, require_readable
from actors.sources.emoji import Emoji
from actors.sources.image_folder import ImageFolder
from actors.sources.listing_text import classes_text, listing_notes
from actors.sources.parquet import Parquet
from common.config.recipe import Recipe
from common.errors import BrokenImageError
from common.image_shards import read_skipped
from common.protocols import ImageSource
from common.reasons import reasons_text

TRIED = 16  # images read, spread over the source


def check_source(recipe: Recipe) -> str:
    """Raises DataError where nothing can be read."""
    source = build_source(recipe, "train")
    require_readable(source)
    if recipe.evaluation.enabled:
        require_readable(build_source(recipe, "held_out"))
    if not recipe.source.has_pictures:
        return f"{len(source):,} {recipe.source.kind} without pictures"
    num_epochs = recipe.learner.num_steps * recipe.learner.images_per_step / len(source)
    return "; ".join([f"{len(source):,} images, {num_epochs:.2g} epochs", *_seen(source)])


def _seen(source: ImageSource) -> Iterator[str]:
    tried = range(0, len(source), max(1, len(source) // TRIED))[:TRIED]
    if isinstance(source, Emoji):
        yield f"{source.num_mirrored:,} of them mirrored; {classes_text(source.class_names)}"
    elif isinstance(source, ImageFolder):
        yield classes_text(source.found.names)
        yield _sizes_text([size for index in tried if (size := source.size_of(index))])
        yield from listing_notes(source.found)
    elif isinstance(source, Parquet):
        manifest = source.manifest
        labels = classes_text(manifest.classes) if manifest.classes else f"class ids up to {manifest.max_label}"
        yield labels if manifest.conditioning == "label" else "captions"
        yield f"{manifest.image_size} x {manifest.image_size} px"
        if manifest.num_skipped:
            why = reasons_text(reason for _, reason in read_skipped(source.folder))
            yield f"{manifest.num_skipped:,} skipped by `prepare`: {why or 'its list is gone'}"
    reasons = [error.reason for index in tried if (error := _broken(source, index))]
    if reasons:
        yield f"will be skipped, of {len(tried)} tried: {reasons_text(reasons)}"


def _sizes_text(sizes: list[tuple[int, int]]) -> str:
    """By the number of pixels."""
    if not sizes:
        return "of unknown sizes"
    small, large = (f"{width} x {height}" for width, height in (min(sizes, key=_area), max(sizes, key=_area)))
    return f"{small} px" if small == large else f"{small} to {large} px"


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _broken(source: ImageSource, index: int) -> BrokenImageError | None:
    try:
        source.read(index)
    except BrokenImageError as error:
        return error
    return None
