"""The embedding regulariser of reAR (arXiv 2510.04450): hidden states must say which codes are meant.

    λ · mean_t [1 - cos(f(h¹_t), e(z_t))] + λ · mean_t [1 - cos(g(hᵏ_t), e(z_{t+1}))]

Two networks of two layers lead from hidden states to the codebook's vectors: f, after the first block, to the code
of the token that is being read; g, after the block at three quarters of the depth, to that of the next one. Both
codes are the image's own, whatever noise the context has. The networks are thrown away with the learner.

Letters: N rows, T image tokens, S places of a sequence, W width of hidden states, D numbers of a code.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from common.config.recipe import Recipe
from common.models.families import PolicyModule
from common.models.loading import load_codes
from common.seeding import generator
from common.weights.snapshot import as_array
from learner.optimizer import Arrays, load_optimizer_arrays, optimizer_arrays

HIDDEN = 2048
PREFIX = "embedding_regulariser."


class EmbeddingRegulariser(nn.Module):
    codes_VD: Tensor

    def __init__(self, policy: PolicyModule, recipe: Recipe, device: torch.device):
        """Watches the policy's blocks from now on, where `watching` asks for it."""
        super().__init__()
        self.register_buffer("codes_VD", load_codes(recipe, device), persistent=False)
        draws = generator(recipe.seed, "embedding regulariser")
        width, code_size = policy.width, self.codes_VD.shape[1]
        self.read = _network(width, code_size, draws)
        self.following = _network(width, code_size, draws)
        self.to(device)
        self._seen_NSW: dict[str, Tensor] | None = None
        last = max(1, round(0.75 * policy.num_blocks)) - 1
        for name, block in (("read", policy.blocks[0]), ("following", policy.blocks[last])):
            block.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(_block: nn.Module, _inputs: Any, hidden_NSW: Tensor) -> None:
            if self._seen_NSW is not None:
                self._seen_NSW[name] = hidden_NSW

        return keep

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the blocks give in here, for the next call; one forward."""
        seen: dict[str, Tensor] = {}
        self._seen_NSW = seen
        try:
            yield
        finally:
            self._seen_NSW = None
        self._last = seen

    def forward(self, targets_NT: Tensor) -> Tensor:
        """The loss of each row that was watched, [N], before its weight λ."""
        seen, T = self._last, targets_NT.shape[1]
        self._last = {}
        codes_NTD = self.codes_VD[targets_NT]
        # the last T places: that of the condition's last token, which reads none, then T - 1 tokens
        read = self.read(seen["read"][:, -T:][:, 1:]).float()
        following = self.following(seen["following"][:, -T:]).float()
        return _distance(read, codes_NTD[:, :-1]) + _distance(following, codes_NTD)

    def average_gradients(self, over_ranks: Callable[[Tensor], Tensor], num_ranks: int) -> None:
        """As DDP does for the policy. `over_ranks` adds up a tensor over them."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(over_ranks(parameter.grad) / num_ranks)

    def state(self, optimizer: AdamW) -> Arrays:
        """Weights and moments, under names of their own."""
        weights = {name: as_array(value) for name, value in self.state_dict().items()}
        arrays = weights | dict(optimizer_arrays(optimizer, self))
        return {PREFIX + name: array for name, array in arrays.items()}

    def take(self, optimizer: AdamW, arrays: Arrays) -> Arrays:
        """Restore what `state` gave from among `arrays`; the others."""
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        if own:
            names = self.state_dict().keys()
            self.load_state_dict({name: torch.from_numpy(np.array(own[name])) for name in names})
            load_optimizer_arrays(optimizer, self, {key: own[key] for key in own.keys() - names})
        return {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}


def embedding_regulariser(
    policy: PolicyModule, recipe: Recipe, device: torch.device
) -> EmbeddingRegulariser | None:
    """None where `learner.embedding_weight` is 0."""
    return EmbeddingRegulariser(policy, recipe, device) if recipe.learner.embedding_weight else None


def _distance(codes_NTD: Tensor, targets_NTD: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(codes_NTD, targets_NTD, dim=-1)).mean(dim=1)


def _network(width: int, code_size: int, draws: torch.Generator) -> nn.Sequential:
    """With weights that depend on the run's seed alone: every rank begins with the same."""
    layers = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, code_size)
    for layer in layers:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=draws)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.GELU(), layers[1])
