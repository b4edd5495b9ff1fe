"""Pixels from bytes to numbers and back. Letters: B images, H and W pixels, 3 channels."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels_BHWC: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W] in [-1, 1] on `device`: bytes travel, a quarter of the floats."""
    return from_bytes(torch.from_numpy(pixels_BHWC).to(device).permute(0, 3, 1, 2)).contiguous()


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1], of any shape."""
    half = torch.full((), 127.5, device=pixels.device)  # by a plain number CUDA divides otherwise: it rounds twice
    return pixels.float().div(half).sub(1)


def to_bytes(pixels: Tensor) -> Tensor:
    """Float around [-1, 1] → uint8 of the same shape, clamped as in the published sampler."""
    return (127.5 * pixels.float() + 128).clamp(0, 255).to(torch.uint8)
