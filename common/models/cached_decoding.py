"""Decoding of a stack of blocks from a key-value cache, token after token.

A decoder computes the same as `forward` for the tokens given so far; cached values do not follow later updates of
the weights. It holds 2 * layers * B * (P + T - 1) * D numbers. Shape letters: those of `block_stack.py`.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.protocols import Condition

if TYPE_CHECKING:
    from common.models.block_stack import BlockStack


class KeyValueCache:
    """Keys and values of one layer, filled from the left, for at most `capacity` positions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._store: Tensor | None = None

    def append(self, keys_BHQd: Tensor, values_BHQd: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, [B, H, K, d] each."""
        if self._store is None:  # the batch and, under autocast, the dtype are only known here
            batch, heads, _, head_dim = keys_BHQd.shape
            self._store = keys_BHQd.new_empty(2, batch, heads, self.capacity, head_dim)
        end = self.length + keys_BHQd.shape[2]
        self._store[0, :, :, self.length : end] = keys_BHQd
        self._store[1, :, :, self.length : end] = values_BHQd
        self.length = end
        return self._store[0, :, :, :end], self._store[1, :, :, :end]


class FixedCache:
    """A `KeyValueCache` whose every answer has `capacity` positions, zeros where nothing was appended."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.positions_Q = torch.zeros(0, dtype=torch.int64)  # of what is appended next
        self.keys_BHKd: Tensor | None = None
        self.values_BHKd: Tensor | None = None

    def append(self, keys_BHQd: Tensor, values_BHQd: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, [B, H, K, d] each."""
        if self.keys_BHKd is None or self.values_BHKd is None:  # batch and dtype are only known here
            batch, heads, _, head_dim = keys_BHQd.shape
            self.keys_BHKd = keys_BHQd.new_zeros(batch, heads, self.capacity, head_dim)
            self.values_BHKd = torch.zeros_like(self.keys_BHKd)
        self.keys_BHKd.index_copy_(2, self.positions_Q, keys_BHQd)
        self.values_BHKd.index_copy_(2, self.positions_Q, values_BHQd)
        return self.keys_BHKd, self.values_BHKd


class _Decoder:
    """A `CachedDecoder`: each call runs the same blocks over the new positions only."""

    def __init__(self, model: "BlockStack", condition: Condition) -> None:
        self._model = model
        self._condition = condition
        self._position = 0
        self._device = next(model.parameters()).device
        self._capacity = model.num_condition_tokens + model.num_tokens - 1
        self._rope = model.rope(self._device)
        self._mask = model.attention_mask(condition, self._capacity)

    @torch.no_grad()
    def next_logits(self, tokens_B: Tensor | None) -> Tensor:
        """Append the last drawn tokens (None at the start) and return float32 logits [B, V] of the next."""
        model = self._model
        assert (tokens_B is None) == (self._position == 0), "None at the start, and only there"
        x_BQD = (
            model.embed_condition(self._condition) if tokens_B is None else model.embed_image(tokens_B)[:, None]
        )
        start, end = self._position, self._position + x_BQD.shape[1]
        assert end <= self._capacity, f"all {model.num_tokens} tokens are drawn"
        hidden_BQD = self._hidden(x_BQD, start, end)
        self._position = end
        return model.logits(hidden_BQD[:, -1])

    def _hidden(self, x_BQD: Tensor, start: int, end: int) -> Tensor:
        raise NotImplementedError


class GrowingDecoder(_Decoder):
    """Attends to what is there so far: the least work, in other shapes at each token."""

    def __init__(self, model: "BlockStack", condition: Condition) -> None:
        super().__init__(model, condition)
        self._caches = [KeyValueCache(self._capacity) for _ in model.blocks]

    def _hidden(self, x_BQD: Tensor, start: int, end: int) -> Tensor:
        mask = None if self._mask is None else self._mask[:, :, start:end, :end]
        return self._model.through_blocks(x_BQD, self._rope[:, start:end], mask, self._caches)


class CompiledDecoder(_Decoder):
    """Attends to all positions that will be, those to come masked: one shape, so that steps are compiled once."""

    def __init__(self, model: "BlockStack", condition: Condition) -> None:
        super().__init__(model, condition)
        if self._mask is None:
            whole = torch.ones(self._capacity, self._capacity, dtype=torch.bool, device=self._device)
            self._mask = whole.tril()[None, None]
        self._caches = [FixedCache(self._capacity) for _ in model.blocks]

    def _hidden(self, x_BQD: Tensor, start: int, end: int) -> Tensor:
        assert self._mask is not None
        positions_Q = torch.arange(start, end, device=self._device)
        rope_2Qr, mask_B1QK = self._rope.index_select(1, positions_Q), self._mask.index_select(2, positions_Q)
        blocks = [block.forward for block in self._model.blocks] if start == 0 else self._model.compiled_steps
        for block, cache in zip(blocks, self._caches, strict=True):
            cache.positions_Q = positions_Q
            x_BQD = block(x_BQD, rope_2Qr, mask_B1QK, cache)
        return x_BQD
