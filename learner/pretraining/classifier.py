"""Training of the small classifier that scores the demo's images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.seeding import generator

MAX_SHIFT = 2
"""Pixels an image is moved by at most along each axis, so that a shifted digit keeps its class."""


def train_classifier(
    model: nn.Module,
    pixels_NCHW: Tensor,
    labels_N: Tensor,
    *,
    num_steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Trains `model`, whose forward gives (features, logits), in place; leaves it in eval mode.

    `pixels_NCHW` are floats in [-1, 1], `labels_N` int64. AdamW with a one-cycle learning rate whose peak is
    `lr`; each batch is drawn with replacement and moved by up to MAX_SHIFT pixels. `on_step` gets the number
    of steps done and the cross-entropy of the last batch (nats).
    """
    draws = generator(seed, "classifier training")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=num_steps)
    model.train()
    for step in range(1, num_steps + 1):
        rows_B = torch.randint(len(pixels_NCHW), (batch_size,), generator=draws)
        pixels_BCHW = shifted(pixels_NCHW[rows_B], draws)
        _, logits_BK = model(pixels_BCHW)
        loss = F.cross_entropy(logits_BK, labels_N[rows_B])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, loss.item())
    model.eval()


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
