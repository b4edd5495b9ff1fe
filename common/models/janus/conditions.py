"""What Janus-Pro is conditioned on, outside the network: the token ids of a prompt.

Letters: L tokens of a prompt, P including padding.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from common.image_shards import Manifest
from common.models.janus.prompts import PromptTokenizer, loaded_tokenizer
from common.models.janus.spec import JanusPolicySpec
from common.protocols import ConditionRow


class PromptConditions:
    """Three columns: `prompt_ids`, `null_prompt_ids`, `prompt_mask`, padded on the left."""

    def __init__(self, spec: JanusPolicySpec):
        self._spec = spec
        length = (spec.prompt_length,)
        self.columns: Mapping[str, tuple[str, tuple[int, ...]]] = {
            "prompt_ids": ("int32", length),
            "null_prompt_ids": ("int32", length),
            "prompt_mask": ("uint8", length),
        }

    def of_caption(self, ids_2L: np.ndarray) -> ConditionRow:
        """From a prompt and its null twin, int32 [2, L], padded with the null twin's pads."""
        length = self._spec.prompt_length
        missing = length - ids_2L.shape[1]
        if missing < 0:
            raise DataError(
                f"a prompt has {ids_2L.shape[1]} tokens and policy.prompt_length is {length}: prepare the prompts "
                f"with --prompt-length {length}, or raise it"
            )
        padded = np.pad(ids_2L, ((0, 0), (missing, 0)), constant_values=ids_2L[1, 1])
        return {
            "prompt_ids": padded[0],
            "null_prompt_ids": padded[1],
            "prompt_mask": (np.arange(length) >= missing).astype(np.uint8),
        }

    def of_shard_row(self, values: Mapping[str, Any]) -> ConditionRow:
        return self.of_caption(np.array([values["prompt_ids"], values["null_prompt_ids"]], np.int32))

    def shard_misfits(self, folder: Path, manifest: Manifest) -> Iterator[str]:
        prompts, spec = manifest.prompts, self._spec
        if prompts is None:
            yield (
                f"policy.family is janus, but the shards at {folder} hold no prompts: prepare captioned pictures "
                "with --prompts"
            )
            return
        if prompts.length > spec.prompt_length:
            yield (
                f"the prompts at {folder} have up to {prompts.length} tokens and policy.prompt_length is "
                f"{spec.prompt_length}: set policy.prompt_length={prompts.length}, or prepare them with "
                f"--prompt-length {spec.prompt_length}"
            )
        if prompts.vocabulary_size > spec.network.vocabulary_size:
            yield (
                f"the prompts at {folder} are of a tokenizer with {prompts.vocabulary_size} tokens "
                f"({prompts.tokenizer}) and the policy knows {spec.network.vocabulary_size}: prepare them with "
                "the tokenizer.json of the model"
            )

    def require_encoder(self, text_encoder: str) -> None:
        """UserError if the tokenizer cannot be had or is not one of Janus."""
        self._tokenizer(text_encoder)

    def encode(self, captions: Sequence[str], text_encoder: str) -> list[np.ndarray]:
        """What `of_caption` takes, for each caption: int32 [2, L]."""
        return self._tokenizer(text_encoder).of_captions(captions)

    def _tokenizer(self, path: str) -> PromptTokenizer:
        path = path or self._spec.prompt_tokenizer
        if not path:
            raise DataError(
                "the prompts' tokenizer is not named: set policy.prompt_tokenizer, or give --text-encoder, to the "
                "tokenizer.json of the model"
            )
        return loaded_tokenizer(path, self._spec.prompt_length)
