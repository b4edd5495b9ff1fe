"""Images read together: the broken ones are left out and named. More in test_sources: real files."""

from collections.abc import Collection

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from actors.image_batch import ImageBatch, batch_of, read_readable, start_reading
from common.errors import BrokenImageError, DataError
from common.pixels import to_tensor
from common.protocols import SourceImage

CPU = torch.device("cpu")


class Shades:
    """Picture i is of shade i; some cannot be decoded."""

    def __init__(self, broken: Collection[int] = ()) -> None:
        self._broken = broken

    def __len__(self) -> int:
        return 100

    def read(self, index: int) -> SourceImage:
        if index in self._broken:
            raise BrokenImageError(f"{index}.png", "it is cut short")
        condition: dict[str, np.ndarray | np.generic] = {
            "label": np.int64(index),
            "caption": np.full((2, 3), index, np.float32),
        }
        return SourceImage(f"{index}.png", np.full((4, 4, 3), index, np.uint8), condition)


@given(indices=st.lists(st.integers(0, 99), min_size=1, max_size=8), broken=st.sets(st.integers(0, 99)))
def test_what_is_readable_is_kept_in_order_and_what_is_not_is_named(indices: list[int], broken: set[int]) -> None:
    batch = batch_of(start_reading(Shades(broken), indices))
    bad = {position: f"{index}.png" for position, index in enumerate(indices) if index in broken}
    good = [position for position in range(len(indices)) if position not in bad]
    named = batch.broken if isinstance(batch, ImageBatch) else batch
    assert {position: error.image_id for position, error in named.items()} == bad
    assert all(error.reason == "it is cut short" for error in named.values())
    assert isinstance(batch, ImageBatch) == bool(good)
    if isinstance(batch, ImageBatch):
        shades = [indices[position] for position in good]
        assert batch.positions == tuple(good)
        assert batch.image_ids == tuple(f"{shade}.png" for shade in shades)
        assert batch.pixels_BHWC[:, 0, 0, 0].tolist() == shades
        assert batch.condition["label"].tolist() == shades


def test_every_condition_column_is_stacked() -> None:
    batch = read_readable(Shades(broken={5}), [3, 5, 4])
    assert batch.condition["label"].dtype == np.int64
    assert batch.condition["caption"].shape == (2, 2, 3)
    assert batch.condition["caption"][:, 0, 0].tolist() == [3, 4]


def test_tensors_are_pixels_around_zero_and_the_condition() -> None:
    pixels_BCHW, condition = read_readable(Shades(), [0, 51]).tensors(CPU)
    assert pixels_BCHW.shape == (2, 3, 4, 4)
    assert pixels_BCHW.dtype == torch.float32
    torch.testing.assert_close(pixels_BCHW[:, 0, 0, 0], torch.tensor([-1.0, -0.6]))
    assert condition["label"].tolist() == [0, 51]
    assert condition["caption"].dtype == torch.float32


def test_bytes_travel_to_the_device_and_become_numbers_there() -> None:
    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default and result.device != args[0].device:
                dtypes.append(args[0].dtype)
            return result

    dtypes: list[torch.dtype] = []
    with Copies():
        pixels_BCHW = to_tensor(np.zeros((2, 4, 4, 3), np.uint8), torch.device("meta"))
    assert dtypes == [torch.uint8]
    assert (pixels_BCHW.shape, pixels_BCHW.dtype) == ((2, 3, 4, 4), torch.float32)


def test_every_byte_becomes_the_number_that_division_gives() -> None:
    shades = np.arange(256, dtype=np.uint8)
    pixels_BCHW = to_tensor(np.broadcast_to(shades[:, None, None, None], (256, 1, 1, 3)).copy(), CPU)
    expected_B = shades.astype(np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(pixels_BCHW[:, 2, 0, 0].numpy(), expected_B)


def test_a_batch_without_a_readable_image_is_an_error_that_names_the_first() -> None:
    with pytest.raises(
        DataError, match=r"none of 2 images can be read; the first: 7\.png is not a readable image"
    ):
        read_readable(Shades(broken={7, 8}), [7, 8])


def test_an_error_that_is_not_the_images_fault_is_not_swallowed() -> None:
    class Gone(Shades):
        def read(self, index: int) -> SourceImage:
            raise DataError("the data set is gone")

    with pytest.raises(DataError, match="the data set is gone"):
        batch_of(start_reading(Gone(), [0]))
