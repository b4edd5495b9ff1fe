"""The arithmetic shared by LPIPS metrics: unit features of a trunk's stages, weighted and averaged.

Shape letters: B images (groups), G samples per group, N images, C channels, H and W feature rows and columns, T
tokens of a square grid.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from common.token_grid import pool_to_grid


def staged_features(stages: Iterable[nn.Module], images_BCHW: Tensor) -> list[Tensor]:
    """The unit-length output [B, C, H, W] of each stage of an LPIPS trunk."""
    features = []
    hidden = images_BCHW
    for stage in stages:
        hidden = stage(hidden)
        features.append(_unit_length(hidden))
    return features


def staged_distance(
    stages: Iterable[nn.Module], heads: Iterable[Tensor], images_NCHW: Tensor, reference: list[Tensor]
) -> Tensor:
    """LPIPS (arXiv 1801.03924, equation 1) float32 [B, G]: weighted squared differences of unit features.

    The N = B * G images are ordered by group; `heads` has one weight vector [C] per stage, and `reference` is the
    result of `staged_features` for the B source images. Only one stage's features are in memory at a time.
    """
    B = len(reference[0])
    total_BG = torch.zeros(B, len(images_NCHW) // B, device=images_NCHW.device)
    for squared_BGCHW, head_C in _squared_differences(stages, heads, images_NCHW, reference):
        total_BG = total_BG + squared_BGCHW.mean((-2, -1)) @ head_C
    return total_BG


def staged_distance_map(
    stages: Iterable[nn.Module],
    heads: Iterable[Tensor],
    images_NCHW: Tensor,
    reference: list[Tensor],
    grid_size: int,
) -> Tensor:
    """The distance before the mean over the picture, float32 [B, G, T]; its mean over tokens is the distance.

    Each stage is averaged over a token's area of the picture. If a stage has fewer cells than the grid has tokens,
    every token in a cell gets the cell's difference.
    """
    B, T = len(reference[0]), grid_size**2
    total_BGT = torch.zeros(B, len(images_NCHW) // B, T, device=images_NCHW.device)
    for squared_BGCHW, head_C in _squared_differences(stages, heads, images_NCHW, reference):
        weighted_BGHW = (squared_BGCHW * head_C[:, None, None]).sum(dim=2)
        total_BGT = total_BGT + pool_to_grid(weighted_BGHW, grid_size)
    return total_BGT


def _squared_differences(
    stages: Iterable[nn.Module], heads: Iterable[Tensor], images_NCHW: Tensor, reference: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Squared differences of unit features, [B, G, C, H, W], with the stage's head [C]."""
    hidden = images_NCHW
    for stage, head_C, reference_BCHW in zip(stages, heads, reference, strict=True):
        hidden = stage(hidden)
        features_BGCHW = _unit_length(hidden).unflatten(0, (len(reference_BCHW), -1))
        yield (features_BGCHW - reference_BCHW.unsqueeze(1)).square(), head_C


def _unit_length(features_NCHW: Tensor) -> Tensor:
    # vector_norm instead of the root of a sum: its gradient at a column of zeros is 0, not NaN.
    return features_NCHW / (torch.linalg.vector_norm(features_NCHW, dim=1, keepdim=True) + 1e-10)
