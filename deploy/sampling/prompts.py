"""Prompts: read from a file, and encoded like the captions of `prepare`.

Letters: L valid caption tokens, D width of a caption feature.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from common.errors import DataError
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.models.t5.text_encoder import TextEncoder, feature_width

BATCH = 32  # prompts encoded together, in the file's order; affects the last bits of the features


@dataclass(frozen=True)
class Prompt:
    text: str
    line: str  # as in the file, without surrounding spaces
    is_json: bool


def read_prompts(path: Path) -> list[Prompt]:
    """The lines of a `.jsonl` file (objects with the key `prompt`) or a plain text file; empty lines are skipped.

    Raises DataError.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--prompts {path} is not a readable text file: {error}") from None
    is_json = path.suffix == ".jsonl"
    prompts = [
        Prompt(_text_of(line, f"line {number} of {path}") if is_json else line.strip(), line.strip(), is_json)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise DataError(f"--prompts {path} holds no prompt: write one a line")
    return prompts


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise DataError(f'{where} is no JSON object with a text "prompt": {line[:60]}')
    return text


def prompts_sha256(prompts: Sequence[Prompt]) -> str:
    return sha256("\n".join(prompt.line for prompt in prompts).encode()).hexdigest()


def require_width(text_encoder: str, policy: LlamaGenPolicySpec) -> None:
    """Raise DataError if the encoder's features do not fit the policy; loads no weights."""
    width = feature_width(text_encoder)
    if width != policy.caption_dim:
        raise DataError(
            f"--text-encoder {text_encoder} gives features {width} wide and policy.caption_dim is "
            f"{policy.caption_dim}: name the encoder that the generator was trained with"
        )


def encode_prompts(prompts: Sequence[Prompt], text_encoder: str, policy: LlamaGenPolicySpec) -> list[np.ndarray]:
    """float16 [L, D] of each prompt. The encoder is freed afterwards, so that actors can use its memory."""
    encoder = TextEncoder(text_encoder, policy.caption_length)
    texts = [prompt.text for prompt in prompts]
    features: list[np.ndarray] = []
    for start in range(0, len(texts), BATCH):
        features += encoder.features(texts[start : start + BATCH])
    del encoder
    torch.cuda.empty_cache()
    return features
