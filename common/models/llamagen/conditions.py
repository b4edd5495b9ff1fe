"""What LlamaGen is conditioned on, outside the network: a class id, or the T5 features of a caption.

Letters: N rows, L caption tokens, P caption tokens including padding, D width of a caption feature.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from common.image_shards import FEATURE_TYPE, Manifest
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.models.text_encoders import caption_encoder, encoder_width
from common.protocols import ConditionRow

Columns = Mapping[str, tuple[str, tuple[int, ...]]]
BATCH = 32  # captions encoded together, in their order: part of the arithmetic


class ClassConditions:
    """One column, `label`."""

    def __init__(self, spec: LlamaGenPolicySpec):
        self._spec = spec
        self.columns: Columns = {"label": ("int64", ())}

    def of_class(self, label: int) -> ConditionRow:
        return {"label": np.int64(label)}

    def of_shard_row(self, values: Mapping[str, Any]) -> ConditionRow:
        return self.of_class(values["label"])

    def shard_misfits(self, folder: Path, manifest: Manifest) -> Iterator[str]:
        if manifest.conditioning != "label":
            yield (
                f"policy.conditioning is class, but the shards at {folder} hold captions: name shards with labels"
            )
        if manifest.max_label >= self._spec.num_classes:
            yield (
                f"the shards at {folder} hold class id {manifest.max_label} and policy.num_classes is "
                f"{self._spec.num_classes}: class ids must be below it"
            )


class CaptionConditions:
    """Two columns, `caption_features` and `caption_mask`, padded on the left."""

    def __init__(self, spec: LlamaGenPolicySpec):
        self._spec = spec
        length, dim = spec.caption_length, spec.caption_dim
        self.columns: Columns = {
            "caption_features": ("float16", (length, dim)),
            "caption_mask": ("uint8", (length,)),
        }

    def of_caption(self, features_LD: np.ndarray) -> ConditionRow:
        """`caption_features` [P, D], zeros first, and `caption_mask` uint8 [P], 1 where valid."""
        length = self._spec.caption_length
        missing = length - len(features_LD)
        return {
            "caption_features": np.pad(features_LD, ((missing, 0), (0, 0))),
            "caption_mask": (np.arange(length) >= missing).astype(np.uint8),
        }

    def of_shard_row(self, values: Mapping[str, Any]) -> ConditionRow:
        stored_LD = np.frombuffer(values["caption_features"], FEATURE_TYPE)
        return self.of_caption(stored_LD.reshape(values["caption_tokens"], -1))

    def shard_misfits(self, folder: Path, manifest: Manifest) -> Iterator[str]:
        captions, spec = manifest.captions, self._spec
        if captions is None:
            yield (
                f"policy.conditioning is text, but the shards at {folder} hold no text features: prepare "
                "captioned pictures with --text-encoder"
            )
            return
        if captions.dim != spec.caption_dim:
            yield (
                f"the text features at {folder} are {captions.dim} wide ({captions.encoder}) and "
                f"policy.caption_dim is {spec.caption_dim}: prepare them with the encoder that the policy was "
                "trained with"
            )
        if captions.length > spec.caption_length:
            yield (
                f"the captions at {folder} have up to {captions.length} tokens and policy.caption_length is "
                f"{spec.caption_length}: prepare them with --caption-length {spec.caption_length}"
            )

    def require_encoder(self, text_encoder: str) -> None:
        """DataError if the encoder's features do not fit the policy; loads no weights."""
        if not text_encoder:
            raise DataError(
                "--prompts needs --text-encoder: name the T5 model that the generator was trained with, such as "
                "google/flan-t5-xl"
            )
        width = encoder_width(text_encoder)
        if width != self._spec.caption_dim:
            raise DataError(
                f"--text-encoder {text_encoder} gives features {width} wide and policy.caption_dim is "
                f"{self._spec.caption_dim}: name the encoder that the generator was trained with"
            )

    def encode(self, captions: Sequence[str], text_encoder: str) -> list[np.ndarray]:
        """What `of_caption` takes, for each caption: float16 [L, D]. The encoder is freed afterwards."""
        import torch

        encoder = caption_encoder(text_encoder, self._spec.caption_length)
        features: list[np.ndarray] = []
        for start in range(0, len(captions), BATCH):
            features += encoder.features(list(captions[start : start + BATCH]))
        del encoder
        torch.cuda.empty_cache()
        return features


def conditions_of(spec: LlamaGenPolicySpec) -> ClassConditions | CaptionConditions:
    return ClassConditions(spec) if spec.conditioning == "class" else CaptionConditions(spec)
