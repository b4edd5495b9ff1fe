"""Captions to features, by the encoder of a T5 model (LlamaGen: flan-t5-xl, 120 tokens).

Letters: B captions, P padded length, L valid tokens of one caption, D feature width.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from common.errors import DataError, UserError
from common.hub import SCHEME
from common.image_shards import FEATURE_TYPE
from common.models.t5.captions import clean_caption
from common.models.weights_reading import not_finite
from common.paths import resolve

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class TextEncoder:
    """A T5 encoder in bfloat16, on a GPU if this process has one."""

    def __init__(self, name: str, length: int):
        transformers = _transformers()
        self._length = length
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        source = _located(name)
        with _explaining(name):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            self._model, loading = transformers.T5EncoderModel.from_pretrained(
                source, dtype=torch.bfloat16, output_loading_info=True
            )
        if loading["missing_keys"]:
            lacking = ", ".join(sorted(loading["missing_keys"])[:3])
            raise UserError(f"--text-encoder {name} lacks weights of a T5 encoder ({lacking}, …): name another")
        if sick := not_finite(self._model.state_dict()):
            raise UserError(f"--text-encoder {name} holds NaN or infinity in {sick}: get a sound copy")
        self._model.eval().to(self._device)

    @torch.no_grad()
    def features(self, captions: Sequence[str]) -> list[np.ndarray]:
        """float16 [L, D] of each caption after cleaning; L is at most `length`, the end token included."""
        tokens = self._tokenizer(
            [clean_caption(caption) for caption in captions],
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        mask_BP = tokens["attention_mask"]
        features_BPD = self._model(input_ids=tokens["input_ids"], attention_mask=mask_BP).last_hidden_state
        stored = [
            features_PD[mask_P.bool()].float().cpu().numpy().astype(FEATURE_TYPE)
            for features_PD, mask_P in zip(features_BPD, mask_BP, strict=True)
        ]
        if not all(np.isfinite(features_LD).all() for features_LD in stored):
            raise DataError("the text encoder gave features that float16 cannot hold: is it a T5 model's encoder?")
        return stored


def feature_width(name: str) -> int:
    """D, from the encoder's configuration, without loading weights. Raises UserError if that is unavailable."""
    transformers = _transformers()
    source = _located(name)
    with _explaining(name):
        config = transformers.AutoConfig.from_pretrained(source)
        transformers.AutoTokenizer.from_pretrained(source)
    if config.model_type != "t5":
        raise UserError(f"--text-encoder {name} is a model of type {config.model_type}: a T5 model is needed")
    return config.d_model


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError(
            "--text-encoder needs the transformers package, which is not installed: pip install '.[text]'"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _located(name: str) -> str:
    """A folder if it exists, else a hub name, with or without hf://."""
    folder = resolve(name)
    if folder.is_dir():
        return str(folder)
    hub_name = name.removeprefix(SCHEME)
    if not _HUB_NAME.fullmatch(hub_name):
        raise UserError(f"--text-encoder {name} is no folder: name a folder with a T5 model, or a hub name")
    return hub_name


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Turn the errors of transformers for an unavailable model into one sentence."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"--text-encoder {name} cannot be loaded ({reason}): name a folder with the configuration, weights "
            "and tokenizer of a T5 model, or a hub name that this machine can reach"
        ) from None
