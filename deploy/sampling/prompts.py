"""Prompts: read from a file, and encoded like the captions of `prepare`.

Letters: L valid caption tokens, D width of a caption feature.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from common.errors import DataError
from common.text import decoded, repaired


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
        lines = decoded(path.read_bytes()).split("\n")
    except OSError as error:
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
    except (ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise DataError(f'{where} is no JSON object with a text "prompt": {line[:60]}')
    return repaired(text)


def prompts_sha256(prompts: Sequence[Prompt]) -> str:
    return sha256("\n".join(prompt.line for prompt in prompts).encode()).hexdigest()
