"""Text from outside becomes text that every file and table can hold."""

import os

import pytest

from common.text import decoded, parsed_json, repaired, shown_name


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain", "plain"),
        ("größer 你好".encode(), "größer 你好"),
        (b"caf\xe9", "caf�"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("weiß".encode("utf-16"), "weiß"),
        ("weiß".encode("utf-32"), "weiß"),
        (b"\xff\xfea", "�"),  # half a letter
        (b"\xed\xa0\xbd", "���"),  # a surrogate in UTF-8
    ],
)
def test_bytes_are_read_as_their_mark_says_and_what_cannot_be_is_replaced(content: bytes, text: str) -> None:
    assert decoded(content) == text


@pytest.mark.parametrize(
    ("text", "whole"),
    [("a 😀", "a 😀"), ("\ud83d\ude00", "😀"), ("a \ud83d b", "a � b"), ("\ude00\ud83d", "��"), ("\udce9", "�")],
)
def test_halves_of_letters_are_joined_or_replaced(text: str, whole: str) -> None:
    assert repaired(text) == whole
    whole.encode()


def test_names_of_files_stay_different() -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"caf\xe8.png", "café.png".encode(), b"plain.png")]
    shown = [shown_name(name) for name in names]
    assert shown == ["caf\\xe9.png", "caf\\xe8.png", "café.png", "plain.png"]
    assert shown_name("\ud83d.png") == "�.png"


def test_json_is_read_in_other_encodings_and_its_errors_are_of_one_kind() -> None:
    assert parsed_json('{"a": "é"}'.encode("utf-16")) == {"a": "é"}
    assert parsed_json(b'{"a": "\xe9"}') == {"a": "�"}
    for broken in (b"{", b"", b"[" * 200_000, b"1" * 5000):
        with pytest.raises(ValueError, match="it is not JSON"):
            parsed_json(broken)
