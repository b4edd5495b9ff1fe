"""Maps over pixels or feature cells, averaged over the grid of image tokens.

Letters: H and W rows and columns of a map, T tokens of a square grid, in raster order.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_to_grid(map_HW: Tensor, grid_size: int) -> Tensor:
    """Area averages [..., T] of maps [..., H, W] over the cells of a grid_size x grid_size grid.

    The mean of the result is the mean of the map. A pixel cut by a cell's edge counts in proportion to the area
    inside, and a cell smaller than a pixel takes the pixel's value: a deep layer's map can have fewer cells than
    the picture has tokens, or a number that the grid does not divide.
    """
    H, W = map_HW.shape[-2:]
    if H % grid_size == 0 and W % grid_size == 0:
        cells = F.avg_pool2d(map_HW.flatten(0, -3)[:, None], (H // grid_size, W // grid_size))
        return cells.view(*map_HW.shape[:-2], grid_size**2)
    rows_gH, columns_gW = (_shares(size, grid_size).to(map_HW) for size in (H, W))
    return (rows_gH @ map_HW @ columns_gW.T).flatten(-2)


def _shares(size: int, grid_size: int) -> Tensor:
    """[grid_size, size]: share of each grid cell in each of `size` equal parts of a line. Rows sum to 1."""
    cell_g1 = torch.arange(grid_size, dtype=torch.float64)[:, None] * size  # in units of 1 / (size * grid_size)
    part_H = torch.arange(size, dtype=torch.float64) * grid_size
    overlap = torch.minimum(cell_g1 + size, part_H + grid_size) - torch.maximum(cell_g1, part_H)
    return overlap.clamp(min=0) / size
