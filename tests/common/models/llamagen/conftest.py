"""Weights of models at their published sizes: too large to keep, so they are a function of their names."""

import zlib
from collections.abc import Callable
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def procedural(name: str, shape: tuple[int, ...]) -> Tensor:
    """The numbers that the expected outputs in tests/data/llamagen were computed with."""
    x = np.random.default_rng([11, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return torch.from_numpy(x if "embedding" in name else x / np.float32(prod(shape[1:])) ** np.float32(0.5))
    is_scale = "norm" in name and name.endswith("weight")
    return torch.from_numpy(1 + np.float32(0.1) * x if is_scale else np.float32(0.05) * x)


@pytest.fixture
def fill_procedurally() -> Callable[[nn.Module], None]:
    """Gives a module on the meta device its procedural weights, and leaves it in eval mode."""

    def fill(module: nn.Module) -> None:
        weights = {name: procedural(name, tuple(own.shape)) for name, own in module.state_dict().items()}
        module.load_state_dict(weights, assign=True)
        module.eval()

    return fill
