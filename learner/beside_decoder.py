"""What changes beside the decoder under learner.method decoder: its moving average and a discriminator of patches.

    average         D̄ ← decay · D̄ + (1 - decay) · D  after each step
    discriminator   C minimises  mean max(0, 1 - C(I)) + mean max(0, 1 + C(D(x)))  over patches

for images I and samples x. Convolutions judge each patch by itself (Isola et al. 2017, arXiv 1611.07004), under
the hinge loss (Lim and Ye 2017, arXiv 1705.02894). Both are outside DDP, alike on every rank, and in checkpoints.

Letters: N pictures, B groups, K samples per group, C, H, W of a picture, P patches.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from common.config.recipe import Recipe
from common.models.families import TokenizerModule
from common.seeding import generator
from learner.optimizer import Arrays, load_optimizer_arrays, optimizer_arrays

OverRanks = Callable[[Tensor], Tensor]  # adds up a tensor over them
_AVERAGE, _DISCRIMINATOR = "decoder average.", "patch discriminator."
_WIDTHS = (64, 128, 256)


class Beside(Protocol):
    """Beside the model that DDP trains."""

    def update(self, over_ranks: OverRanks, num_ranks: int) -> None:
        """After an optimizer step."""

    def state(self) -> Arrays:
        """All that a resume needs, under names of its own."""

    def take(self, arrays: Arrays) -> Arrays:
        """Restore what `state` gave from among `arrays`; the others."""


class DecoderAverage:
    def __init__(self, tokenizer: TokenizerModule, decay: float):
        """It begins as the decoder is now."""
        self.tokenizer = deepcopy(tokenizer).requires_grad_(False)
        self._trained, self._decay = tokenizer, decay

    @torch.no_grad()
    def update(self, over_ranks: OverRanks, num_ranks: int) -> None:
        for _, average, now in self._pairs():
            average.lerp_(now, 1 - self._decay)

    def state(self) -> Arrays:
        return {_AVERAGE + name: average.cpu().numpy() for name, average, _ in self._pairs()}

    @torch.no_grad()
    def take(self, arrays: Arrays) -> Arrays:
        for name, average, _ in self._pairs():
            if _AVERAGE + name in arrays:
                average.copy_(torch.from_numpy(np.array(arrays[_AVERAGE + name])))
        return {name: array for name, array in arrays.items() if not name.startswith(_AVERAGE)}

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        averages = dict(self.tokenizer.named_parameters())
        for name, parameter in self._trained.named_parameters():
            if parameter.requires_grad:
                yield name, averages[name], parameter


class PatchDiscriminator(nn.Module):
    """Without norms, so that neither ranks nor micro-batches change what it says of a picture."""

    num_updates: Tensor

    def __init__(self, recipe: Recipe, device: torch.device):
        super().__init__()
        self._section, self._max_norm = recipe.decoder, recipe.learner.max_grad_norm
        self.layers = discriminator_layers(recipe.seed).to(device)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self._optimizer = AdamW(self.layers.parameters(), lr=self._section.gan_lr, weight_decay=0.0)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Scores [N, P], higher for what looks like an image."""
        return self.layers(pixels_NCHW).flatten(1)

    def losses(self, decoded_BKCHW: Tensor, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """As `discriminator_losses`; before `decoder.gan_start` the decoder's is 0."""
        weight = self._section.gan_weight * (int(self.num_updates) >= self._section.gan_start)
        return discriminator_losses(self.layers, weight, decoded_BKCHW, pixels_BCHW)

    def update(self, over_ranks: OverRanks, num_ranks: int) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(over_ranks(parameter.grad) / num_ranks)
        norm = nn.utils.clip_grad_norm_(self.parameters(), self._max_norm)
        if norm.isfinite():
            self._optimizer.step()
        self.num_updates += 1
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> Arrays:
        weights = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        return {_DISCRIMINATOR + name: each for name, each in (weights | self._moments()).items()}

    def take(self, arrays: Arrays) -> Arrays:
        start = len(_DISCRIMINATOR)
        own = {name[start:]: array for name, array in arrays.items() if name.startswith(_DISCRIMINATOR)}
        if own:
            names = self.state_dict().keys()
            self.load_state_dict({name: torch.from_numpy(np.array(own[name])) for name in names})
            load_optimizer_arrays(self._optimizer, self, {key: own[key] for key in own.keys() - names})
        return {name: array for name, array in arrays.items() if not name.startswith(_DISCRIMINATOR)}

    def _moments(self) -> dict[str, np.ndarray]:
        return dict(optimizer_arrays(self._optimizer, self))


def discriminator_layers(seed: int) -> nn.Sequential:
    """They score each patch of pictures [N, C, H, W]."""
    draws = generator(seed, "patch discriminator")
    layers: list[nn.Module] = []
    for channels, width in zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True):
        layers += [_convolution(channels, width, 2, draws), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, _convolution(_WIDTHS[-1], 1, 1, draws))


def discriminator_losses(
    layers: nn.Module, weight: float, decoded_BKCHW: Tensor, pixels_BCHW: Tensor
) -> tuple[Tensor, Tensor]:
    """The decoder's, weighed, without a gradient for the discriminator; its own, without one for the decoder.

    Both [B].
    """
    frozen = {name: parameter.detach() for name, parameter in layers.named_parameters()}
    flat_NCHW, shape = decoded_BKCHW.flatten(0, 1), decoded_BKCHW.shape[:2]
    fooled_NP = torch.func.functional_call(layers, frozen, (flat_NCHW,)).flatten(1)
    decoder_B = -weight * fooled_NP.mean(dim=1).unflatten(0, shape).mean(dim=1)
    drawn_NP = F.relu(1 + layers(flat_NCHW.detach()).flatten(1))
    drawn_B = drawn_NP.mean(dim=1).unflatten(0, shape).mean(dim=1)
    return decoder_B, F.relu(1 - layers(pixels_BCHW).flatten(1)).mean(dim=1) + drawn_B


def _convolution(channels: int, width: int, stride: int, draws: torch.Generator) -> nn.Conv2d:
    """With weights that depend on the run's seed alone: every rank begins with the same."""
    layer = nn.Conv2d(channels, width, kernel_size=4, stride=stride, padding=1)
    nn.init.normal_(layer.weight, std=(16 * channels) ** -0.5, generator=draws)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
