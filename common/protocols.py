"""The interfaces of models, metrics and data sets. Typed structurally: there is no base class to inherit.

Shape letters: B images (groups), G samples per group, T image tokens, V codebook entries, C channels (3), H and W
pixels, D width of hidden states. Pixels in tensors are float in [-1, 1]; stored pixels are uint8.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from common.image_shards import Manifest

# The generator's condition, by column name: each family says which, such as `label` int64 [B].
Condition = Mapping[str, Tensor]
ConditionRow = Mapping[str, np.ndarray | np.generic]  # that of one image, without the batch axis


class ConditionFormat(Protocol):
    """What a policy is conditioned on, from where it comes to the columns that the policy takes.

    A class-conditional family has `of_class`, a text-conditional one the three methods after it.
    """

    columns: Mapping[str, tuple[str, tuple[int, ...]]]  # numpy dtype and shape of one row, by name

    def of_shard_row(self, values: Mapping[str, Any]) -> ConditionRow:
        """From a row of a Parquet shard, with the columns of common/image_shards.py."""

    def shard_misfits(self, folder: Path, manifest: Manifest) -> Iterator[str]:
        """Why shards are not for this policy, in a sentence each."""


class ClassFormat(ConditionFormat, Protocol):
    def of_class(self, label: int) -> ConditionRow:
        """From a class id below `num_classes`."""


class CaptionFormat(ConditionFormat, Protocol):
    def require_encoder(self, text_encoder: str) -> None:
        """Raise DataError if the text encoder does not fit the policy; loads no weights."""

    def encode(self, captions: Sequence[str], text_encoder: str) -> list[np.ndarray]:
        """What `of_caption` takes, for each caption."""

    def of_caption(self, encoded: np.ndarray) -> ConditionRow: ...


class ImageTokenizer(Protocol):
    """A frozen VQ tokenizer."""

    num_tokens: int  # T, in raster order
    codebook_size: int  # V

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """Token ids int64 [B, T]."""

    def decode(self, tokens_BT: Tensor) -> Tensor:
        """Images [B, C, H, W], around [-1, 1] and unclamped: those of `decode_codes(codes(tokens))`."""

    def codes(self, tokens: Tensor) -> Tensor:
        """The codebook's vectors float [..., D], as the decoder takes them, of token ids [...].

        This and `decode_codes` are needed only if advantage.credit is gradient.
        """

    def decode_codes(self, codes_BDhw: Tensor) -> Tensor:
        """Images of codes [B, D, h, w] on the square grid, differentiable."""

    def for_scoring(self, dtype: torch.dtype, compiled_for: int | None = None) -> Self:
        """The same with a decoder that computes in `dtype`, compiled for batches of `compiled_for` pictures.

        Needed only if reward.decode_dtype is bfloat16 or compute.compile is true.
        """


class CachedDecoder(Protocol):
    """Free-running decoding of one batch with a key-value cache."""

    def next_logits(self, tokens_B: Tensor | None) -> Tensor:
        """Append the last drawn tokens (None at the start) and return float32 logits [B, V] of the next."""


class Policy(Protocol):
    """An autoregressive generator over the tokenizer's grid; also an `nn.Module`."""

    num_tokens: int
    codebook_size: int
    activation_checkpointing: bool  # whether the backward pass recomputes each block; may be set
    as_released: (
        bool  # whether teacher-forced forwards are those of a released trainer, if they differ; may be set
    )

    def __call__(self, condition: Condition, context_BT: Tensor, head: bool = True) -> Tensor:
        """Teacher-forced float32 logits [B, T, V] from the T-1 context tokens int64 [B, T-1].

        Without `head`: the hidden states [B, T, D] before the vocabulary head.
        """

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Float32 logits [..., V] of hidden states [..., D], so that a caller can compute them in parts."""

    def null_condition(self, condition: Condition) -> Condition:
        """The unconditional twin of `condition`, for classifier-free guidance and condition drop."""

    def start_decoding(self, condition: Condition) -> CachedDecoder: ...

    @property
    def num_blocks(self) -> int:
        """Equal blocks that the policy is a stack of: what is compiled and recomputed."""

    def compile_blocks(self) -> None:
        """Compile the blocks in place, at their first forward; decoding and state dict stay as they are."""

    def compile_decoding(self) -> None:
        """Compile the steps of decoding; needed only if sampling.compile is true."""


class PerceptualMetric(Protocol):
    """A perceptual distance that computes the source images' features once per group."""

    def to(self, device: torch.device) -> Self: ...

    def reference_features(self, pixels_BCHW: Tensor) -> Any:
        """Features of the B source images, for `distance`."""

    def distance(self, pixels_BGCHW: Tensor, reference: Any) -> Tensor:
        """Distance float32 [B, G] of each sample to its group's source image, differentiable in the samples."""

    def distance_map(self, pixels_BGCHW: Tensor, reference: Any, grid_size: int) -> Tensor:
        """The distance at each place, float32 [B, G, T] over a square grid; its mean is the distance.

        Needed only if advantage.credit is token.
        """


@dataclass(frozen=True)
class SourceImage:
    """One image of a data set, cropped to the recipe's size."""

    image_id: str  # a readable name that leads to the file
    pixels: np.ndarray  # uint8 [H, W, 3]
    condition: ConditionRow
    text: str = ""  # its caption, or the name of its class; empty where it has none


class ImageSource(Protocol):
    """A data set addressed by index, so that any actor can read any image."""

    class_names: tuple[str, ...]  # by class id; empty where the classes have none

    def __len__(self) -> int: ...

    def read(self, index: int) -> SourceImage:
        """Image `index`. Raises BrokenImageError, with the image and the reason, if it cannot be decoded."""
