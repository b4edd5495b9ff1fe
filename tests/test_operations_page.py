"""The failure table of docs/operations.md quotes what the code says; `…` stands for a value."""

import ast
import re
from collections.abc import Iterator

from common.paths import CHECKOUT

ROOMS = ("actors", "common", "deploy", "learner")


def texts(source: str) -> Iterator[str]:
    """Every string of a file, with … for what is filled in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%(\.\d+)?[sdfg]|\{\w+\}", "…", node.value)


def quoted() -> list[str]:
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", page.partition("## When something is wrong")[2], re.MULTILINE)
    ours = [row for row in rows if not row.startswith("Ray: ")]
    return [text for row in ours for text in re.findall(r"`([^`]+)`", row) if text != "events.jsonl"]


def test_a_string_is_read_with_its_values_left_open() -> None:
    assert next(texts('say(f"{a} of " f"{b:.0f} s")')) == "… of … s"
    assert list(texts('log("%s after %.0f s")')) == ["… after … s"]
    assert list(texts('Wording("{actor} left", "warn")')) == ["… left", "warn"]


def test_every_quoted_message_is_one_of_the_code() -> None:
    said = {text for room in ROOMS for path in (CHECKOUT / room).rglob("*.py") for text in texts(path.read_text())}
    messages = quoted()
    assert len(messages) >= 20
    assert [message for message in messages if not any(message in text for text in said)] == []
