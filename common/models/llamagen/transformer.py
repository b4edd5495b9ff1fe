"""LlamaGen's transformer (arXiv 2406.06525): state dicts and logits equal those of the published files.

Shape letters: B images, T image tokens, V codebook entries, D model width, H heads, d head width, P condition
tokens (1 for a class, L for a caption of L features), S positions of the sequence [condition | image tokens], Q
positions computed now, K positions that they can attend to.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.errors import RecipeError
from common.models.llamagen.embedders import CaptionEmbedder, ClassEmbedder
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from common.models.vocabulary_head import float32_logits
from common.protocols import CachedDecoder, Condition

_ROPE_BASE = 10000.0
_NORM_EPS = 1e-5
_INIT_STD = 0.02


def rope_table(num_condition: int, grid_size: int, head_dim: int, device: torch.device) -> Tensor:
    """Cosines and sines float32 [2, P + T, d/2] of the two-dimensional rotary embedding.

    Of a head's d/2 pairs, the first half rotates by the token's row, the second by its column. Condition positions
    are zero, not the identity: the published models were trained with their q and k zeroed.
    """
    num_frequencies = head_dim // 4
    exponents = torch.arange(num_frequencies, dtype=torch.float32, device=device) / num_frequencies
    angles = torch.arange(grid_size, dtype=torch.float32, device=device)[:, None] * _ROPE_BASE**-exponents
    rows = angles[:, None].expand(grid_size, grid_size, num_frequencies)
    columns = angles[None].expand(grid_size, grid_size, num_frequencies)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return F.pad(torch.stack([grid.cos(), grid.sin()]), (0, 0, num_condition, 0))


def rotate(x_BHQd: Tensor, rope_2Qr: Tensor) -> Tensor:
    """Rotate neighbouring pairs of each head; computed in float32, returned in the input's dtype."""
    even, odd = x_BHQd.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope_2Qr
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x_BHQd.dtype)


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


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        normed = x_float * torch.rsqrt(x_float.square().mean(-1, keepdim=True) + _NORM_EPS)
        return normed.to(x.dtype) * self.weight  # cast first, so that bfloat16 rounds as in the published code


class Attention(nn.Module):
    def __init__(self, size: TransformerSize, dropout: float) -> None:
        super().__init__()
        self.num_heads = size.num_heads
        self.wqkv = nn.Linear(size.dim, 3 * size.dim, bias=False)
        self.wo = nn.Linear(size.dim, size.dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        heads = self.wqkv(x_BQD).unflatten(-1, (3, self.num_heads, -1))
        q_BHQd, k_BHQd, v_BHQd = heads.permute(2, 0, 3, 1, 4)
        q_BHQd, k_BHQd = rotate(q_BHQd, rope_2Qr), rotate(k_BHQd, rope_2Qr)
        if cache is not None:
            k_BHQd, v_BHQd = cache.append(k_BHQd, v_BHQd)
        # A single query is the newest position, which sees the whole cache.
        is_causal = mask_B1QK is None and q_BHQd.shape[2] > 1
        mixed = F.scaled_dot_product_attention(q_BHQd, k_BHQd, v_BHQd, attn_mask=mask_B1QK, is_causal=is_causal)
        return self.dropout(self.wo(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    def __init__(self, size: TransformerSize, dropout: float) -> None:
        super().__init__()
        hidden = -(-(8 * size.dim // 3) // size.ffn_multiple) * size.ffn_multiple
        self.w1 = nn.Linear(size.dim, hidden, bias=False)
        self.w3 = nn.Linear(size.dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, size.dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Block(nn.Module):
    def __init__(self, size: TransformerSize, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(size, dropout)
        self.feed_forward = FeedForward(size, dropout)
        self.attention_norm = RMSNorm(size.dim)
        self.ffn_norm = RMSNorm(size.dim)

    def forward(
        self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        x_BQD = x_BQD + self.attention(self.attention_norm(x_BQD), rope_2Qr, mask_B1QK, cache)
        return x_BQD + self.feed_forward(self.ffn_norm(x_BQD))


class LlamaGenTransformer(nn.Module):
    """A `Policy` over a `grid_size` x `grid_size` token grid in raster order.

    `dropout` acts on tokens, attention outputs and feed-forward outputs, only in train mode. Positions are rotary,
    so weights trained at one grid size load at another. With `activation_checkpointing` set, the backward pass
    recomputes each block instead of keeping its activations. Raises RecipeError if heads do not divide the size.
    """

    activation_checkpointing = False
    compiled_steps: Sequence[Callable[..., Tensor]] = ()  # of each block, after `compile_decoding`

    def __init__(
        self, spec: LlamaGenPolicySpec, *, codebook_size: int, grid_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        size = spec.transformer
        if size.dim % (4 * size.num_heads):
            raise RecipeError(
                f"a transformer of dim {size.dim} with num_heads {size.num_heads} cannot be built: each head "
                f"needs a multiple of 4 channels, so make dim a multiple of {4 * size.num_heads}"
            )
        self.codebook_size = codebook_size
        self.grid_size = grid_size
        self.num_tokens = grid_size**2
        self.head_dim = size.dim // size.num_heads
        self.cls_embedding: ClassEmbedder | CaptionEmbedder = (
            ClassEmbedder(spec) if spec.conditioning == "class" else CaptionEmbedder(spec)
        )
        self.tok_embeddings = nn.Embedding(codebook_size, size.dim)
        self.tok_dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(size, dropout) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.dim)
        self.output = nn.Linear(size.dim, codebook_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
        nn.init.zeros_(self.output.weight)  # training starts from the uniform distribution

    def forward(self, condition: Condition, context_BT: Tensor, head: bool = True) -> Tensor:
        """Float32 logits [B, T, V] of all tokens from the T-1 context tokens int64 [B, T-1].

        Without `head`: the hidden states [B, T, D], which `logits` can then turn into logits in parts.
        """
        embedded = [self.cls_embedding(condition), self.tok_embeddings(context_BT)]
        x_BSD = torch.cat(embedded, dim=1)
        length = x_BSD.shape[1]
        mask = self.cls_embedding.attention_mask(condition, length)
        hidden_BSD = self._hidden(x_BSD, self._rope(x_BSD.device)[:, :length], mask)
        hidden_BTD = hidden_BSD[:, self.cls_embedding.num_tokens - 1 :]
        return self.logits(hidden_BTD) if head else hidden_BTD

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Float32 logits [..., V] of hidden states [..., D]: the vocabulary head."""
        return float32_logits(self.norm(hidden_ND), self.output.weight)

    def null_condition(self, condition: Condition) -> Condition:
        """The class id for no class, or the untrained caption with the same caption mask."""
        return self.cls_embedding.null_condition(condition)

    def start_decoding(self, condition: Condition) -> CachedDecoder:
        from common.models.llamagen.decoding import CompiledDecoder, GrowingDecoder  # they import this module

        return CompiledDecoder(self, condition) if self.compiled_steps else GrowingDecoder(self, condition)

    def _rope(self, device: torch.device) -> Tensor:
        # Not a buffer: it would stay empty in a model that is built on the meta device and then loaded.
        return rope_table(self.cls_embedding.num_tokens, self.grid_size, self.head_dim, device)

    def _hidden(
        self, x_BQD: Tensor, rope_2Qr: Tensor, mask: Tensor | None, caches: list[KeyValueCache] | None = None
    ) -> Tensor:
        x_BQD = self.tok_dropout(x_BQD)
        recompute = self.activation_checkpointing and torch.is_grad_enabled()
        for index, layer in enumerate(self.layers):
            if caches is not None:  # never the compiled block: each cache length would compile it again
                x_BQD = layer.forward(x_BQD, rope_2Qr, mask, caches[index])
            elif recompute:
                x_BQD = checkpoint(layer, x_BQD, rope_2Qr, mask, None, use_reentrant=False)
            else:
                x_BQD = layer(x_BQD, rope_2Qr, mask, None)
        return x_BQD

    @property
    def num_blocks(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        return self.output.in_features

    def compile_blocks(self, backend: str | Callable = "inductor") -> None:
        """Compile the blocks with torch.compile, in place, at their first forward; decoding stays as it is.

        The state dict's keys do not change, and all blocks share one compilation. Each batch size is compiled
        separately: rounding of code for any size would depend on the sizes that the process met first.
        """
        for layer in self.layers:
            layer.compile(backend=backend, dynamic=False)

    def compile_decoding(self, backend: str | Callable = "inductor") -> None:
        """Have decoding run steps of one token by blocks that torch.compile compiles, once for each batch size.

        What was said of `compile_blocks` holds here too; teacher-forced forwards stay as they are.
        """
        self.compiled_steps = [
            torch.compile(layer.forward, backend=backend, dynamic=False) for layer in self.layers
        ]
