"""Pixels from bytes to numbers. Letters: B images, H and W pixels, 3 channels."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels_BHWC: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W] in [-1, 1] on `device`: bytes travel, a quarter of the floats."""
    pixels_BCHW = torch.from_numpy(pixels_BHWC).to(device).permute(0, 3, 1, 2)
    half = torch.full((), 127.5, device=device)  # by a plain number CUDA divides otherwise: it rounds twice
    return pixels_BCHW.float().div(half).sub(1).contiguous()
