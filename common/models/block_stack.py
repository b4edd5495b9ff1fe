"""What transformer policies have in common: a condition, then image tokens, through equal blocks.

A family names its parts as its published files do and gives the embeddings, the blocks, the rotary table and the
head. How the blocks are run (teacher-forced, from a cache, recomputed, compiled) is here.

Shape letters: B images, T image tokens, V codebook entries, D model width, H heads, d head width, r rotated pairs
of a head, P condition tokens, S positions of the sequence [condition | image tokens], Q positions computed now, K
positions that they can attend to.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.models.cached_decoding import CompiledDecoder, FixedCache, GrowingDecoder, KeyValueCache
from common.protocols import CachedDecoder, Condition

Cache = KeyValueCache | FixedCache


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        normed = x_float * torch.rsqrt(x_float.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight  # cast first, so that bfloat16 rounds as in the published code


def attend(
    q_BHQd: Tensor, k_BHQd: Tensor, v_BHQd: Tensor, mask_B1QK: Tensor | None, cache: Cache | None
) -> Tensor:
    """Attention of the new positions to all so far, [B, Q, D]; without a mask it is causal."""
    if cache is not None:
        k_BHQd, v_BHQd = cache.append(k_BHQd, v_BHQd)
    # A single query is the newest position, which sees the whole cache.
    is_causal = mask_B1QK is None and q_BHQd.shape[2] > 1
    mixed = F.scaled_dot_product_attention(q_BHQd, k_BHQd, v_BHQd, attn_mask=mask_B1QK, is_causal=is_causal)
    return mixed.transpose(1, 2).flatten(2)


def padded_attention(valid_BP: Tensor, length: int) -> Tensor:
    """Attention mask, bool [B, 1, S, S]: each position sees the past, without the condition's padding.

    Padding still sees itself; otherwise its softmax would be empty.
    """
    device = valid_BP.device
    visible_BS = F.pad(valid_BP.bool(), (0, length - valid_BP.shape[1]), value=True)
    causal_SS = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    itself_SS = torch.eye(length, dtype=torch.bool, device=device)
    return ((causal_SS & visible_BS[:, None]) | itself_SS)[:, None]


class BlockStack(nn.Module):
    """A `Policy`, but for its parts: the methods that raise here, and the attributes without a value.

    With `activation_checkpointing` set, the backward pass recomputes each block instead of keeping its
    activations; with `as_released`, teacher-forced forwards are those of the family's released trainer.
    """

    codebook_size: int
    num_tokens: int
    activation_checkpointing = False
    as_released = False
    compiled_steps: Sequence[Callable[..., Tensor]] = ()  # of each block, after `compile_decoding`

    @property
    def blocks(self) -> nn.ModuleList:
        """Each takes x [B, Q, D], a rotary table [2, Q, r], a mask [B, 1, Q, K] or None, and a cache or None."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Of hidden states."""
        raise NotImplementedError

    @property
    def num_condition_tokens(self) -> int:
        """P."""
        raise NotImplementedError

    def embed_condition(self, condition: Condition) -> Tensor:
        """[B, P, D]."""
        raise NotImplementedError

    def embed_image(self, tokens: Tensor) -> Tensor:
        """[..., D] of token ids [...]."""
        raise NotImplementedError

    def attention_mask(self, condition: Condition, length: int) -> Tensor | None:
        """Bool [B, 1, S, S] for the first `length` positions; None: plainly causal."""
        raise NotImplementedError

    def rope(self, device: torch.device) -> Tensor:
        """The rotary table float32 [2, S, r] of all positions.

        Not a buffer: it would stay empty in a model that is built on the meta device and then loaded.
        """
        raise NotImplementedError

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Float32 logits [..., V] of hidden states [..., D]: the vocabulary head."""
        raise NotImplementedError

    def forward(self, condition: Condition, context_BT: Tensor, head: bool = True) -> Tensor:
        """Float32 logits [B, T, V] of all tokens from the T-1 context tokens int64 [B, T-1].

        From T context tokens they are read one token late: each has seen the token in its own place.
        Without `head`: the hidden states [B, T, D], which `logits` can then turn into logits in parts.
        """
        x_BSD = torch.cat([self.embed_condition(condition), self.embed_image(context_BT)], dim=1)
        length = x_BSD.shape[1]
        mask = self.attention_mask(condition, length)
        hidden_BSD = self.through_blocks(x_BSD, self.rope(x_BSD.device)[:, :length], mask)
        hidden_BTD = hidden_BSD[:, -self.num_tokens :]
        return self.logits(hidden_BTD) if head else hidden_BTD

    def start_decoding(self, condition: Condition) -> CachedDecoder:
        return CompiledDecoder(self, condition) if self.compiled_steps else GrowingDecoder(self, condition)

    def through_blocks(
        self, x_BQD: Tensor, rope_2Qr: Tensor, mask: Tensor | None, caches: Sequence[Cache] | None = None
    ) -> Tensor:
        """Hidden states [B, Q, D] after the last block."""
        recompute = self.activation_checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            if caches is not None:  # never the compiled block: each cache length would compile it again
                x_BQD = block.forward(x_BQD, rope_2Qr, mask, caches[index])
            elif recompute:
                x_BQD = checkpoint(block, x_BQD, rope_2Qr, mask, None, use_reentrant=False)
            else:
                x_BQD = block(x_BQD, rope_2Qr, mask, None)
        return x_BQD

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def compile_blocks(self, backend: str | Callable = "inductor") -> None:
        """Compile the blocks with torch.compile, in place, at their first forward; decoding stays as it is.

        The state dict's keys do not change, and all blocks share one compilation. Each batch size is compiled
        separately: rounding of code for any size would depend on the sizes that the process met first.
        """
        for block in self.blocks:
            block.compile(backend=backend, dynamic=False)

    def compile_decoding(self, backend: str | Callable = "inductor") -> None:
        """Have decoding run steps of one token by blocks that torch.compile compiles, once for each batch size.

        What was said of `compile_blocks` holds here too; teacher-forced forwards stay as they are.
        """
        self.compiled_steps = [
            torch.compile(block.forward, backend=backend, dynamic=False) for block in self.blocks
        ]
