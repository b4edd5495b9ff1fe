"""LAION's aesthetic head: linear layers, without activations between them, over CLIP's embedding of a picture.

Letter: E width of an embedding.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from common.config.reward_models import WANTED
from common.models.weights_files import find_weights
from common.models.weights_reading import not_finite, read_tensors

SETTING = "reward_models.aesthetic"


class AestheticHead(nn.Module):
    def __init__(self, weights: list[Tensor], biases: list[Tensor]):
        super().__init__()
        self._weights, self._biases = nn.ParameterList(weights), nn.ParameterList(biases)
        self.requires_grad_(False)

    @property
    def width(self) -> int:
        """E."""
        return self._weights[0].shape[1]

    @torch.no_grad()
    def forward(self, embedded: Tensor) -> Tensor:
        """Float32 [...] of unit vectors [..., E]. Dropout between the layers is for training."""
        for weight, bias in zip(self._weights, self._biases, strict=True):
            embedded = nn.functional.linear(embedded, weight, bias)
        return embedded[..., 0]


def load_aesthetic_head(address: str | Path) -> AestheticHead:
    """From `layers.N.weight` and `layers.N.bias`, of any sizes. Raises CheckpointError."""
    file = find_weights(address, "aesthetic weights", SETTING, wanted=WANTED["aesthetic"])
    stored = {name: tensor.float() for name, tensor in read_tensors(file).items()}
    if sick := not_finite(stored):
        raise file.refused(f"hold NaN or infinity in {sick}: get a sound copy")
    places = sorted({int(name.partition(".")[0]) for name in _plain(stored) if name.partition(".")[0].isdigit()})
    plain = _plain(stored)
    weights = [plain.get(f"{place}.weight", torch.zeros(0)) for place in places]
    biases = [plain.get(f"{place}.bias", torch.zeros(0)) for place in places]
    if not _fit(weights, biases) or len(plain) != 2 * len(places):
        raise file.refused("are no head of linear layers, layers.0.weight and so on, that ends in one number")
    return AestheticHead(weights, biases)


def _plain(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("layers."): tensor for name, tensor in stored.items()}


def _fit(weights: list[Tensor], biases: list[Tensor]) -> bool:
    if not weights or any(weight.ndim != 2 for weight in weights) or len(weights[-1]) != 1:
        return False
    follow = all(after.shape[1] == len(before) for before, after in pairwise(weights))
    return follow and all(bias.shape == weight.shape[:1] for weight, bias in zip(weights, biases, strict=True))
