"""Janus-Pro's generator (arXiv 2501.17811): names of parameters and logits are those of the published files.

A Llama over [prompt | image tokens]. Image tokens enter by a small table of their own and two layers; the head is
two layers over the codebook. Shape letters: those of `common/models/block_stack.py`; P is the padded prompt.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import RecipeError
from common.models.block_stack import BlockStack, Cache, RMSNorm, attend, padded_attention
from common.models.janus.spec import JanusPolicySpec, JanusSize
from common.models.vocabulary_head import head_logits
from common.protocols import Condition

_ROPE_BASE = 10000.0
_NORM_EPS = 1e-6
_INIT_STD = 0.02


def rope_table(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Cosines and sines float32 [2, S, d/2] of positions 0, 1, 2 …

    Padding is counted as well: only the distance of two positions matters to attention.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * _ROPE_BASE**-exponents
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHQd: Tensor, rope_2Qr: Tensor) -> Tensor:
    """Rotate the first half of each head with the second, as Llama does; in float32, returned in x's dtype."""
    first, second = x_BHQd.float().chunk(2, dim=-1)
    cos, sin = rope_2Qr
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BHQd.dtype)


def padded_on_the_right(condition: Condition) -> Condition:
    """As the released trainer has prompts: image tokens then come later the shorter a prompt is."""
    order_BP = condition["prompt_mask"].argsort(dim=1, descending=True, stable=True)
    return {name: column.gather(1, order_BP) for name, column in condition.items()}


class Attention(nn.Module):
    def __init__(self, size: JanusSize) -> None:
        super().__init__()
        self.num_heads = size.num_heads
        self.q_proj = nn.Linear(size.dim, size.dim, bias=False)
        self.k_proj = nn.Linear(size.dim, size.dim, bias=False)
        self.v_proj = nn.Linear(size.dim, size.dim, bias=False)
        self.o_proj = nn.Linear(size.dim, size.dim, bias=False)

    def forward(self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: Cache | None) -> Tensor:
        q_BHQd, k_BHQd, v_BHQd = (
            part(x_BQD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BHQd, k_BHQd = rotate(q_BHQd, rope_2Qr), rotate(k_BHQd, rope_2Qr)
        return self.o_proj(attend(q_BHQd, k_BHQd, v_BHQd, mask_B1QK, cache))


class FeedForward(nn.Module):
    def __init__(self, size: JanusSize) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.dim, size.ffn_dim, bias=False)
        self.up_proj = nn.Linear(size.dim, size.ffn_dim, bias=False)
        self.down_proj = nn.Linear(size.ffn_dim, size.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, size: JanusSize) -> None:
        super().__init__()
        self.self_attn = Attention(size)
        self.mlp = FeedForward(size)
        self.input_layernorm = RMSNorm(size.dim, _NORM_EPS)
        self.post_attention_layernorm = RMSNorm(size.dim, _NORM_EPS)

    def forward(self, x_BQD: Tensor, rope_2Qr: Tensor, mask_B1QK: Tensor | None, cache: Cache | None) -> Tensor:
        x_BQD = x_BQD + self.self_attn(self.input_layernorm(x_BQD), rope_2Qr, mask_B1QK, cache)
        return x_BQD + self.mlp(self.post_attention_layernorm(x_BQD))


class Llama(nn.Module):
    """The parts of the language model under their published names."""

    def __init__(self, size: JanusSize) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocabulary_size, size.dim)
        self.layers = nn.ModuleList(Block(size) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.dim, _NORM_EPS)


class Aligner(nn.Module):
    """From the width of the image tokens' table to that of the language model."""

    def __init__(self, size: JanusSize) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size.code_dim, size.dim), nn.GELU(), nn.Linear(size.dim, size.dim))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes)


class Head(nn.Module):
    def __init__(self, size: JanusSize, codebook_size: int) -> None:
        super().__init__()
        self.output_mlp_projector = nn.Linear(size.dim, size.dim)
        self.vision_head = nn.Linear(size.dim, codebook_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Float32 logits."""
        inner = F.gelu(self.output_mlp_projector(hidden))
        return head_logits(inner, self.vision_head)


class JanusTransformer(BlockStack):
    """A `Policy` over a `grid_size` x `grid_size` token grid in raster order.

    It takes the condition columns `prompt_ids` and `null_prompt_ids` [B, P], padded on the left, and `prompt_mask`
    [B, P], 1 where valid. There is no dropout in Janus, so `dropout` must be 0. Raises RecipeError if heads do not
    divide the size.
    """

    def __init__(self, spec: JanusPolicySpec, *, codebook_size: int, grid_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        size = spec.network
        if size.dim % (2 * size.num_heads):
            raise RecipeError(
                f"a transformer of dim {size.dim} with num_heads {size.num_heads} cannot be built: each head "
                f"needs an even number of channels, so make dim a multiple of {2 * size.num_heads}"
            )
        if dropout:
            raise RecipeError(f"dropout is {dropout:g}, but Janus has none: set it to 0")
        self.codebook_size = codebook_size
        self.num_tokens = grid_size**2
        self.prompt_length = spec.prompt_length
        self.head_dim = size.dim // size.num_heads
        self.language_model = nn.ModuleDict({"model": Llama(size)})
        self.gen_embed = nn.Embedding(codebook_size, size.code_dim)
        self.gen_aligner = Aligner(size)
        self.gen_head = Head(size, codebook_size)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def llama(self) -> Llama:
        model = self.language_model["model"]
        assert isinstance(model, Llama)
        return model

    @property
    def blocks(self) -> nn.ModuleList:
        return self.llama.layers

    @property
    def width(self) -> int:
        return self.llama.embed_tokens.embedding_dim

    @property
    def num_condition_tokens(self) -> int:
        return self.prompt_length

    def forward(self, condition: Condition, context_BT: Tensor, head: bool = True) -> Tensor:
        return super().forward(padded_on_the_right(condition) if self.as_released else condition, context_BT, head)

    def embed_condition(self, condition: Condition) -> Tensor:
        return self.llama.embed_tokens(condition["prompt_ids"])

    def embed_image(self, tokens: Tensor) -> Tensor:
        # In the residual stream's dtype: under autocast, steps of decoding would else be in bfloat16 throughout.
        return self.gen_aligner(self.gen_embed(tokens)).to(self.llama.embed_tokens.weight.dtype)

    def attention_mask(self, condition: Condition, length: int) -> Tensor:
        return padded_attention(condition["prompt_mask"], length)

    def rope(self, device: torch.device) -> Tensor:
        return rope_table(self.prompt_length + self.num_tokens, self.head_dim, device)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return self.gen_head(self.llama.norm(hidden_ND))

    def null_condition(self, condition: Condition) -> Condition:
        """The prompt of pads between its first and last token, which are attended to: the mask stays."""
        return {**condition, "prompt_ids": condition["null_prompt_ids"]}
