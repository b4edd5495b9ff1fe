"""LlamaGen in a recipe: its generator, its tokenizer and their sizes."""

from collections.abc import Iterator
from math import prod
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, PositiveInt

from common.config.base import Section

CAPTIONED_SOURCES = ("parquet", "emoji", "prompts")
CLASS_SOURCES = ("mnist", "emoji", "image_folder", "parquet", "classes")

# A key's name, then older names that are still accepted.
ObtainFrom = Annotated[str, Field(validation_alias=AliasChoices("obtain_from", "source"))]


class TransformerSize(Section):
    """A LlamaGen transformer's size."""

    num_layers: int = Field(gt=0)
    """Transformer blocks."""
    num_heads: int = Field(gt=0)
    """Attention heads; dim / num_heads must be a multiple of 4 (rows and columns rotate in pairs)."""
    dim: int = Field(gt=0)
    """Width of the residual stream."""
    ffn_multiple: int = Field(default=256, gt=0)
    """The feed-forward width is 8/3 of dim, rounded up to a multiple of this."""


TRANSFORMER_SIZES = {
    "B": TransformerSize(num_layers=12, num_heads=12, dim=768),
    "L": TransformerSize(num_layers=24, num_heads=16, dim=1024),
    "XL": TransformerSize(num_layers=36, num_heads=20, dim=1280),
    "XXL": TransformerSize(num_layers=48, num_heads=24, dim=1536),
    "3B": TransformerSize(num_layers=24, num_heads=32, dim=3200),
}


class LlamaGenPolicySpec(Section):
    """A LlamaGen generator (arXiv 2406.06525)."""

    family: Literal["llamagen"] = "llamagen"
    """The model family."""
    size: Literal["B", "L", "XL", "XXL", "3B"] | TransformerSize
    """A published size, or a size of your own."""
    conditioning: Literal["class", "text"] = "class"
    """The kind of condition."""
    num_classes: int = Field(default=1000, gt=0)
    """Number of classes of a class-conditional generator."""
    caption_dim: int = Field(default=2048, gt=0)
    """Width of the caption features of a text-conditional generator."""
    caption_length: int = Field(default=120, gt=0)
    """Caption tokens of a text-conditional generator."""
    checkpoint: str
    """Weights: a published .pt file, a .safetensors file, a checkpoint folder of a run, or a file of the Hugging
    Face hub as hf://OWNER/REPO/FILE."""
    obtain_from: ObtainFrom = ""
    """How to get the weights if the file is missing: hf://OWNER/REPO/FILE, a URL, or a command to run."""

    @property
    def transformer(self) -> TransformerSize:
        return self.size if isinstance(self.size, TransformerSize) else TRANSFORMER_SIZES[self.size]

    @property
    def released_context_is_whole(self) -> bool:
        """Whether the released trainer gives all T tokens as context, and so reads its logits one token late."""
        return False

    @property
    def condition_bytes(self) -> int:
        """Bytes of one group's condition: a class id, or a caption's float16 features and mask."""
        return self.caption_length * (2 * self.caption_dim + 1) if self.conditioning == "text" else 8

    def problems(self, source_kind: str) -> Iterator[str]:
        """Why this policy cannot be, or cannot be trained on a source of that kind."""
        if self.conditioning == "text" and source_kind not in CAPTIONED_SOURCES:
            yield (
                f"policy.conditioning is text, but source.kind {source_kind} has no captions: set "
                "source.kind=parquet, with shards that `prepare --text-encoder` made"
            )
        if self.conditioning == "class" and source_kind not in CLASS_SOURCES:
            yield (
                f"policy.conditioning is class, but source.kind {source_kind} has no classes: set "
                "source.kind=classes, or one with pictures"
            )
        size = self.transformer
        if size.dim % (4 * size.num_heads):
            yield (
                f"policy.size.dim is {size.dim} with {size.num_heads} heads: "
                "dim / num_heads must be a multiple of 4"
            )


class TokenizerSize(Section):
    """A VQGAN tokenizer's size, as built by LlamaGen."""

    channels: int = Field(default=128, gt=0)
    """Width of the first level; a multiple of 32 (GroupNorm has 32 groups)."""
    channel_multipliers: tuple[PositiveInt, ...] = Field(default=(1, 1, 2, 2, 4), min_length=1)
    """Width of each level over `channels`; each level except the last halves the picture."""
    num_res_blocks: int = Field(default=2, gt=0)
    """Residual blocks per level in the encoder; the decoder has one more."""
    z_channels: int = Field(default=256, gt=0)
    """Width between encoder and quantizer."""
    codebook_size: int = Field(default=16384, gt=1)
    """Codebook entries, V."""
    codebook_dim: int = Field(default=8, gt=0)
    """Width of a codebook entry."""


TOKENIZER_SIZES = {
    "vq16": TokenizerSize(),
    "vq8": TokenizerSize(channel_multipliers=(1, 2, 2, 4)),
}


class LlamaGenTokenizerSpec(Section):
    """LlamaGen's VQ tokenizer."""

    family: Literal["llamagen_vq"] = "llamagen_vq"
    """The model family."""
    size: Literal["vq16", "vq8"] | TokenizerSize
    """A published size, or a size of your own."""
    checkpoint: str
    """Weights: a published .pt file, a .safetensors file, or hf://OWNER/REPO/FILE."""
    obtain_from: ObtainFrom = ""
    """How to get the weights if the file is missing: hf://OWNER/REPO/FILE, a URL, or a command to run."""

    @property
    def network(self) -> TokenizerSize:
        return self.size if isinstance(self.size, TokenizerSize) else TOKENIZER_SIZES[self.size]

    @property
    def downsampling(self) -> int:
        """Pixels that a token covers along each side."""
        return prod([2] * (len(self.network.channel_multipliers) - 1))

    @property
    def codebook_size(self) -> int:
        return self.network.codebook_size

    @property
    def code_size(self) -> int:
        """Numbers of a codebook entry's vector."""
        return self.network.codebook_dim

    def problems(self, image_size: int) -> Iterator[str]:
        """Why this tokenizer cannot be, or cannot cut images of that size into tokens."""
        if image_size % self.downsampling:
            yield (
                f"image_size is {image_size}, but the tokenizer halves images "
                f"{len(self.network.channel_multipliers) - 1} times: use a multiple of {self.downsampling}"
            )
        if self.network.channels % 32:
            yield f"tokenizer.size.channels is {self.network.channels}: use a multiple of 32"


def published() -> Iterator[tuple[str, LlamaGenPolicySpec | LlamaGenTokenizerSpec]]:
    """Name and section of every model whose weights are published."""
    for size in TRANSFORMER_SIZES:
        for conditioning in ("class", "text"):
            section = {"size": size, "conditioning": conditioning, "checkpoint": ""}
            yield f"LlamaGen-{size}, {conditioning}-conditional", LlamaGenPolicySpec.model_validate(section)
    for size in TOKENIZER_SIZES:
        section = {"size": size, "checkpoint": ""}
        yield f"LlamaGen's tokenizer {size}", LlamaGenTokenizerSpec.model_validate(section)
