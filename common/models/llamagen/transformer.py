"""LlamaGen's transformer (arXiv 2406.06525): state dicts and logits equal those of the published files.

Shape letters: those of `block_stack.py`; P is 1 for a class, and L for a caption of L features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import RecipeError
from common.models.block_stack import BlockStack, Cache, RMSNorm, attend
from common.models.llamagen.embedders import CaptionEmbedder, ClassEmbedder
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from common.models.vocabulary_head import head_logits
from common.protocols import Condition

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


class Attention(nn.Module):
    def __init__(self, size: TransformerSize, dropout: float) -> None:
        super().__init__()
        self.num_heads = size.num_heads
        self.wqkv = nn.Linear(size.dim, 3 * size.dim, bias=False)
        self.wo = nn.Linear(size.dim, size.dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: Cache | None) -> Tensor:
        heads = self.wqkv(x_BQD).unflatten(-1, (3, self.num_heads, -1))
        q_BHQd, k_BHQd, v_BHQd = heads.permute(2, 0, 3, 1, 4)
        q_BHQd, k_BHQd = rotate(q_BHQd, rope_2Qr), rotate(k_BHQd, rope_2Qr)
        return self.dropout(self.wo(attend(q_BHQd, k_BHQd, v_BHQd, mask_B1QK, cache)))


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
        self.attention_norm = RMSNorm(size.dim, _NORM_EPS)
        self.ffn_norm = RMSNorm(size.dim, _NORM_EPS)

    def forward(self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: Cache | None) -> Tensor:
        x_BQD = x_BQD + self.attention(self.attention_norm(x_BQD), rope_2Qr, mask_B1QK, cache)
        return x_BQD + self.feed_forward(self.ffn_norm(x_BQD))


class LlamaGenTransformer(BlockStack):
    """A `Policy` over a `grid_size` x `grid_size` token grid in raster order.

    `dropout` acts on tokens, attention outputs and feed-forward outputs, only in train mode. Positions are rotary,
    so weights trained at one grid size load at another. Raises RecipeError if heads do not divide the size.
    """

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
        self.norm = RMSNorm(size.dim, _NORM_EPS)
        self.output = nn.Linear(size.dim, codebook_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
        nn.init.zeros_(self.output.weight)  # training starts from the uniform distribution

    @property
    def blocks(self) -> nn.ModuleList:
        return self.layers

    @property
    def num_condition_tokens(self) -> int:
        return self.cls_embedding.num_tokens

    def embed_condition(self, condition: Condition) -> Tensor:
        return self.cls_embedding(condition)

    def embed_image(self, tokens: Tensor) -> Tensor:
        return self.tok_embeddings(tokens)

    def attention_mask(self, condition: Condition, length: int) -> Tensor | None:
        return self.cls_embedding.attention_mask(condition, length)

    def rope(self, device: torch.device) -> Tensor:
        return rope_table(self.cls_embedding.num_tokens, self.grid_size, self.head_dim, device)

    def through_blocks(
        self, x_BQD: Tensor, rope_2Qr: Tensor, mask: Tensor | None, caches: Sequence[Cache] | None = None
    ) -> Tensor:
        return super().through_blocks(self.tok_dropout(x_BQD), rope_2Qr, mask, caches)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return head_logits(self.norm(hidden_ND), self.output)

    def null_condition(self, condition: Condition) -> Condition:
        """The class id for no class, or the untrained caption with the same caption mask."""
        return self.cls_embedding.null_condition(condition)

    @property
    def width(self) -> int:
        return self.output.in_features
