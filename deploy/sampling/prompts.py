"""Prompts: read from a file, and encoded like the captions of `prepare`.

Letters: L valid caption tokens, D width of a caption feature.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path

from common.errors import DataError
from common.text import decoded, repaired


@dataclass(frozen=True)
class Prompt:
    text: str
    line: str  # as in the file, without surrounding spaces
    is_json: bool


def read_prompts(path: Path, what: str = "") -> list[Prompt]:
    """The prompts of a file, by the end of its name; empty lines are skipped. Raises DataError.

    .jsonl         objects with the key `prompt`, one a line: GenEval
    .json          a list of texts, or of such objects: HPD's benchmark, and its DrawBench
    .csv, .tsv     a table with a column Prompts or prompt: DrawBench as first published
    any other      a prompt a line
    """
    what = what or f"--prompts {path}"
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"{what} is not a readable text file: {error}") from None
    prompts = list(_READERS.get(path.suffix.lower(), _of_lines)(text, path))
    if not prompts:
        raise DataError(f"{what} holds no prompt: write one a line")
    return prompts


def _of_lines(text: str, _: Path) -> Iterator[Prompt]:
    for line in filter(None, map(str.strip, text.split("\n"))):
        yield Prompt(line, line, is_json=False)


def _of_json_lines(text: str, path: Path) -> Iterator[Prompt]:
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line:
            yield Prompt(_text_of(line, f"line {number} of {path}"), line, is_json=True)


def _of_json(text: str, path: Path) -> Iterator[Prompt]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise DataError(f'{path} is no JSON list: it must hold texts, or objects with a text "prompt"')
    for number, entry in enumerate(entries, start=1):
        if isinstance(entry, str):
            yield Prompt(repaired(entry), entry, is_json=False)
        else:
            line = json.dumps(entry, ensure_ascii=False)
            yield Prompt(_text_of(line, f"entry {number} of {path}"), line, is_json=True)


def _of_table(text: str, path: Path) -> Iterator[Prompt]:
    rows = list(csv.reader(StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    names = [name.strip().lower() for name in rows[0]] if rows else []
    column = next((names.index(name) for name in ("prompts", "prompt") if name in names), None)
    if column is None:
        raise DataError(
            f"{path} has the columns {', '.join(names) or '(none)'}: one must be named Prompts or prompt"
        )
    for row in rows[1:]:
        if len(row) > column and row[column].strip():
            yield Prompt(row[column].strip(), row[column].strip(), is_json=False)


_READERS = {".jsonl": _of_json_lines, ".json": _of_json, ".csv": _of_table, ".tsv": _of_table}


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
