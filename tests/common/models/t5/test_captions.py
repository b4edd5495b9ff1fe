"""What the text encoder is given to read."""

import pytest

from common.models.t5.captions import clean_caption


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("A photo of a Cat.", "a photo of a cat."),
        ("two   dogs\nand a cat", "two dogs and a cat"),
        ("Tom &amp;amp; Jerry", "tom & jerry"),
        ("<b>bold</b> <a href='x'>link</a>", "bold link"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("see https://example.org/a?b=c now", "see now"),
        ("buy at www.example.com/cat or shop.example.com today", "buy at or today"),
        ("write to me@example.org or @handle", "write to or"),
        ("holiday_12.JPG at the sea", "at the sea"),
        ("order #123456 of 2024", "order of 2024"),
        ("“quoted” – it’s", '"quoted" - it\'s'),
        ("what!!!! is (  ) this....", "what! is this."),
        (" - | ", ""),
        ("https://example.org", ""),
    ],
)
def test_a_caption_is_lower_case_and_without_what_is_no_prose(caption: str, clean: str) -> None:
    assert clean_caption(caption) == clean
    assert clean_caption(clean) == clean
