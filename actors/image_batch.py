"""Batches of images, without the broken ones."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from common.errors import BrokenImageError, DataError
from common.pixels import to_bytes, to_tensor
from common.protocols import Condition, ImageSource, SourceImage


@dataclass(frozen=True)
class ImageBatch:
    positions: tuple[int, ...]  # [B]; position of each image in the request
    image_ids: tuple[str, ...]  # [B]
    pixels_BHWC: np.ndarray  # uint8 [B, H, W, 3]
    condition: Mapping[str, np.ndarray]  # each column [B, …]
    broken: Mapping[int, BrokenImageError]  # by position, the images that could not be decoded
    texts: tuple[str, ...] = ()  # [B]; captions or names of classes

    def tensors(self, device: torch.device) -> tuple[Tensor, Condition]:
        """Pixels float32 [B, 3, H, W] in [-1, 1] and the condition, on `device`."""
        condition = {name: torch.from_numpy(column).to(device) for name, column in self.condition.items()}
        return to_tensor(self.pixels_BHWC, device), condition


def start_reading(
    source: ImageSource, image_indices: Sequence[int], executor: Executor | None = None
) -> Iterable[SourceImage | BrokenImageError]:
    """Images or their errors, in order; the threads of `executor`, if given, start reading at once."""
    read_all = map if executor is None else executor.map
    return read_all(partial(_read, source), image_indices)


def batch_of(read_images: Iterable[SourceImage | BrokenImageError]) -> ImageBatch | dict[int, BrokenImageError]:
    """Batch the readable images; if there are none, return the errors by position."""
    images, broken = {}, {}
    for position, image in enumerate(read_images):
        if isinstance(image, BrokenImageError):
            broken[position] = image
        else:
            images[position] = image
    if not images:
        return broken
    read = list(images.values())
    return ImageBatch(
        positions=tuple(images),
        image_ids=tuple(image.image_id for image in read),
        pixels_BHWC=np.stack([image.pixels for image in read]),
        condition={name: np.stack([image.condition[name] for image in read]) for name in read[0].condition},
        broken=broken,
        texts=tuple(image.text for image in read),
    )


def _read(source: ImageSource, index: int) -> SourceImage | BrokenImageError:
    try:
        return source.read(index)
    except BrokenImageError as error:
        return error


def read_readable(source: ImageSource, image_indices: Sequence[int]) -> ImageBatch:
    """Like `batch_of`, but raises DataError if no image is readable."""
    batch = batch_of(start_reading(source, image_indices))
    if isinstance(batch, ImageBatch):
        return batch
    raise DataError(f"none of {len(batch)} images can be read; the first: {next(iter(batch.values()))}")


def to_uint8(pixels_BCHW: Tensor) -> np.ndarray:
    """float [B, 3, H, W] around [-1, 1] → uint8 [B, H, W, 3], clamped as in the published sampler."""
    return to_bytes(pixels_BCHW).permute(0, 2, 3, 1).cpu().numpy()
