"""LlamaGen's condition columns. Letters: L valid caption tokens, D width of a caption feature."""

import numpy as np

from common.models.families import caption_format, condition_format
from common.models.llamagen.spec import LlamaGenPolicySpec

CAPTIONED = LlamaGenPolicySpec(size="B", checkpoint="", conditioning="text", caption_dim=16, caption_length=6)


def test_a_class_is_a_column_of_its_number() -> None:
    rows = condition_format(LlamaGenPolicySpec(size="B", checkpoint="", num_classes=10))
    assert rows.columns == {"label": ("int64", ())}
    assert rows.of_shard_row({"label": 3}) == {"label": np.int64(3)}


def test_captions_are_padded_on_the_left() -> None:
    row = caption_format(CAPTIONED).of_caption(np.full((2, 16), 5, np.float16))
    assert row["caption_mask"].tolist() == [0, 0, 0, 0, 1, 1]
    assert row["caption_features"][:, 0].tolist() == [0, 0, 0, 0, 5, 5]
    assert row["caption_features"].dtype == np.float16
