"""Text from outside, which may be anything, as text that every file, table and terminal can hold; and plurals."""

import codecs
import json
from pathlib import Path
from typing import Any

_MARKS = (  # the longer ones first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(content: bytes) -> str:
    """UTF-8, or what its byte order mark says; U+FFFD where the bytes are neither."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def repaired(text: str) -> str:
    """`text` with halves of surrogate pairs joined, and lone ones as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shown_name(name: str | Path) -> str:
    r"""A file's name for people and tables: the bytes that are not UTF-8 as \xe9, so names stay different."""
    text = str(name)
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that are not bytes of a name
        return repaired(text)


def parsed_json(content: bytes) -> Any:
    """ValueError, in words, where it cannot be parsed; its strings may hold lone surrogates."""
    try:
        return json.loads(decoded(content))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({type(error).__name__})") from None


def counted(number: int, noun: str) -> str:
    """As "1 picture" and "2 pictures"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
