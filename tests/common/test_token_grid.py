"""Maps averaged to the token grid: the mean stays what it was."""

import pytest
import torch
from torch.testing import assert_close

from common.token_grid import pool_to_grid


def test_a_cell_is_the_mean_of_the_pixels_in_it() -> None:
    map_HW = torch.tensor([[1.0, 3.0, 0.0, 0.0], [5.0, 7.0, 0.0, 0.0], [0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]])
    assert pool_to_grid(map_HW[None], 2).tolist() == [[4.0, 0.0, 0.0, 8.0]]


def test_a_pixel_on_the_border_of_two_cells_is_shared() -> None:
    row = torch.tensor([[6.0, 12.0, 0.0]]).expand(3, 3)
    assert_close(pool_to_grid(row[None], 2), torch.tensor([[8.0, 4.0, 8.0, 4.0]]))  # (6 + 12 / 2) / 1.5


def test_tokens_within_one_cell_have_its_value() -> None:
    map_HW = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = [1.0, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]
    assert pool_to_grid(map_HW[None], 4)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 7, 8, 11, 16, 31])
def test_the_mean_over_tokens_is_the_mean_of_the_map(size: int) -> None:
    map_BGHW = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    pooled_BGT = pool_to_grid(map_BGHW, 8)
    assert pooled_BGT.shape == (2, 3, 64)
    assert_close(pooled_BGT.mean(-1), map_BGHW.mean((-2, -1)), rtol=0, atol=1e-6)
