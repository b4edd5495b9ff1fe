"""The loss that trains the small classifier which scores the demo's images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_SHIFT = 2
"""Pixels an image is moved by at most along each axis, so that a shifted digit keeps its class."""


def classifier_loss(
    model: nn.Module, pixels_BCHW: Tensor, labels_B: Tensor, draws: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy (nats) of the classes of images each moved by up to MAX_SHIFT pixels."""
    _, logits_BK = model(shifted(pixels_BCHW, draws))
    accuracy = (logits_BK.detach().argmax(dim=-1) == labels_B).float().mean()
    return F.cross_entropy(logits_BK, labels_B), {"accuracy": float(accuracy)}


def shifted(pixels_BCHW: Tensor, draws: torch.Generator) -> Tensor:
    """Each image moved by its own draw from ±MAX_SHIFT pixels along each axis, edges repeated."""
    B, _, H, W = pixels_BCHW.shape
    padded = F.pad(pixels_BCHW, (MAX_SHIFT,) * 4, mode="replicate")
    top_B, left_B = torch.randint(2 * MAX_SHIFT + 1, (2, B), generator=draws)
    return torch.stack(
        [
            image[:, y : y + H, x : x + W]
            for image, y, x in zip(padded, top_B.tolist(), left_B.tolist(), strict=True)
        ]
    )
