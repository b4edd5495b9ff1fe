"""Reasons in one line."""

from common.reasons import names_text, reasons_text


def test_reasons_are_counted_by_kind_the_commonest_first() -> None:
    reasons = ["no caption", "its class id is -1", "its class id is -20", "its .cls is b'a'", "x", "y"]
    assert reasons_text(["no caption", "no caption"]) == "2 x no caption"
    assert reasons_text(reasons) == (
        "2 x its class id is -1 or the like; 1 x no caption; 1 x its .cls is b'a'; 2 for other reasons"
    )
    assert reasons_text([]) == ""


def test_the_first_names_are_said_and_the_others_counted() -> None:
    assert names_text("abc", 3) == "a, b, c"
    assert names_text("abcde", 3) == "a, b, c and 2 more"
