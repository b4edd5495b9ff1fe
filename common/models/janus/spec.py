"""Janus-Pro's generator in a recipe (arXiv 2501.17811). Its tokenizer is LlamaGen's, from the same file."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from common.config.base import Section
from common.models.llamagen.spec import LlamaGenTokenizerSpec, ObtainFrom

_CAPTIONED_SOURCES = ("parquet",)


class JanusSize(Section):
    """The size of Janus-Pro's language model and of its parts for images."""

    num_layers: int = Field(gt=0)
    """Transformer blocks."""
    num_heads: int = Field(gt=0)
    """Attention heads; dim / num_heads must be even (the two halves of a head rotate together)."""
    dim: int = Field(gt=0)
    """Width of the residual stream."""
    ffn_dim: int = Field(gt=0)
    """Width of the feed-forward layers."""
    vocabulary_size: int = Field(default=102400, gt=0)
    """Entries of the text vocabulary."""
    code_dim: int = Field(default=8, gt=0)
    """Width of the generator's own table of image tokens."""


JANUS_SIZES = {
    "1B": JanusSize(num_layers=24, num_heads=16, dim=2048, ffn_dim=5632),
    "7B": JanusSize(num_layers=30, num_heads=32, dim=4096, ffn_dim=11008),
}


class JanusPolicySpec(Section):
    """A Janus-Pro generator (arXiv 2501.17811), without the parts that understand images."""

    family: Literal["janus"]
    """The model family."""
    size: Literal["1B", "7B"] | JanusSize
    """A published size, or a size of your own."""
    prompt_length: int = Field(default=128, gt=0)
    """Prompt tokens: shorter prompts are padded on the left, the captions of longer ones are cut."""
    prompt_tokenizer: str = ""
    """The model's tokenizer.json, its folder, or hf://OWNER/REPO/tokenizer.json: for the prompts of `sample`.
    Training needs none, because `prepare --prompts` stores token ids."""
    checkpoint: str
    """Weights: a published file of either layout, the index or the folder of its shards, a checkpoint folder of a
    run, or a file of the Hugging Face hub as hf://OWNER/REPO/FILE."""
    obtain_from: ObtainFrom = ""
    """How to get the weights if the file is missing: hf://OWNER/REPO/FILE, a URL, or a command to run."""

    @property
    def network(self) -> JanusSize:
        return self.size if isinstance(self.size, JanusSize) else JANUS_SIZES[self.size]

    @property
    def released_context_is_whole(self) -> bool:
        """Whether the released trainer gives all T tokens as context, and so reads its logits one token late."""
        return True

    @property
    def conditioning(self) -> Literal["class", "text"]:
        return "text"

    @property
    def num_classes(self) -> int:
        return 0

    @property
    def condition_bytes(self) -> int:
        """Bytes of one group's condition: a prompt and its null twin, int32, and their mask."""
        return self.prompt_length * 9

    def problems(self, source_kind: str) -> Iterator[str]:
        """Why this policy cannot be, or cannot be trained on a source of that kind."""
        if source_kind not in _CAPTIONED_SOURCES:
            yield (
                f"policy.family is janus, but source.kind {source_kind} has no prompts: set source.kind=parquet, "
                "with shards that `prepare --prompts` made"
            )
        size = self.network
        if size.dim % (2 * size.num_heads):
            yield (
                f"policy.size.dim is {size.dim} with {size.num_heads} heads: dim / num_heads must be an even "
                "number"
            )


def published() -> Iterator[tuple[str, JanusPolicySpec, LlamaGenTokenizerSpec]]:
    """Name of every published model, and the sections of the generator and the tokenizer in its file."""
    tokenizer = LlamaGenTokenizerSpec.model_validate({"size": "vq16", "checkpoint": ""})
    for size in JANUS_SIZES:
        section = {"family": "janus", "size": size, "checkpoint": ""}
        yield f"Janus-Pro-{size}", JanusPolicySpec.model_validate(section), tokenizer
