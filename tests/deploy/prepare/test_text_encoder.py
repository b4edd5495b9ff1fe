"""Text features: those of the encoder called directly, valid tokens only, float16."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import DataError, UserError
from common.models.t5.text_encoder import TextEncoder, feature_width
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from tests.deploy.prepare.conftest import all_rows, shard_bytes

Make = Callable[..., PrepareOptions]
LENGTH = 8


def direct_features(folder: Path, caption: str) -> np.ndarray:
    """float32 [LENGTH, 16] of one caption, padding included, straight from transformers."""
    from transformers import AutoTokenizer, T5EncoderModel

    words = AutoTokenizer.from_pretrained(folder)(
        caption, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    model = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        output = model(input_ids=words["input_ids"], attention_mask=words["attention_mask"])
    return output.last_hidden_state[0].float().numpy()


def test_stored_features_are_those_of_the_encoder_without_padding(
    tiny_t5: Path, as_tars: Path, options: Make
) -> None:
    asked = options(as_tars, text_encoder=str(tiny_t5), caption_length=LENGTH, text_batch_size=5)
    manifest = prepare(asked)
    assert manifest.captions is not None
    assert (manifest.captions.dim, manifest.captions.length) == (16, LENGTH)
    rows = all_rows(asked.output).to_pylist()
    assert len(rows) == 197
    for row in rows[:7]:
        num_tokens = len(row["caption"].split()) + 1  # the end token is kept
        assert row["caption_tokens"] == num_tokens
        stored_LD = np.frombuffer(row["caption_features"], "<f2").reshape(num_tokens, 16)
        direct_PD = direct_features(tiny_t5, row["caption"])
        np.testing.assert_allclose(stored_LD, direct_PD[:num_tokens], atol=0.03)  # bfloat16, batches of 5 and of 1
        assert np.abs(stored_LD).max() > 0.5
    assert max(row["caption_tokens"] for row in rows) <= LENGTH


def test_text_features_come_out_the_same_after_an_interruption(
    tiny_t5: Path, as_tars: Path, options: Make
) -> None:
    asked = options(as_tars, text_encoder=str(tiny_t5), caption_length=LENGTH)
    prepare(asked)
    before = shard_bytes(asked.output)
    (asked.output / "shard-00001.parquet").unlink()
    prepare(asked)
    assert shard_bytes(asked.output) == before
    with pytest.raises(DataError, match="made with --text-batch-size 32, and this call has 7"):
        prepare(options(as_tars, text_encoder=str(tiny_t5), caption_length=LENGTH, text_batch_size=7))


def test_a_long_caption_is_cut_and_a_caption_is_cleaned_first(tiny_t5: Path) -> None:
    encoder = TextEncoder(str(tiny_t5), LENGTH)
    long, loud, quiet = encoder.features(["a photo of " * 20, "A PHOTO <b>of</b> grass", "a photo of grass"])
    assert (long.shape, long.dtype) == ((LENGTH, 16), np.float16)
    np.testing.assert_array_equal(loud, quiet)


def test_a_model_that_is_not_there_is_named_before_anything_is_written(as_tars: Path, options: Make) -> None:
    asked = options(as_tars, text_encoder="/no/such/model")
    with pytest.raises(UserError, match="--text-encoder /no/such/model is no folder"):
        prepare(asked)
    assert not asked.output.exists()


def test_a_folder_that_holds_no_t5_is_refused(tiny_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        feature_width(str(tmp_path))
    for file in tiny_t5.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"t5"', '"bert"'))
    with pytest.raises(UserError, match="is a model of type bert: a T5 model is needed"):
        feature_width(str(tmp_path))
    (tmp_path / "config.json").write_text(config.replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(UserError, match="lacks weights of a T5 encoder"):
        TextEncoder(str(tmp_path), LENGTH)


def test_without_transformers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install '.\[text\]'"):
        feature_width("google/flan-t5-xl")


def test_an_input_without_captions_is_refused(tiny_t5: Path, as_folder: Path, options: Make) -> None:
    with pytest.raises(
        DataError, match=r"has no captions: each picture needs a text of its name beside it, such as ant/000\.txt"
    ):
        prepare(options(as_folder, text_encoder=str(tiny_t5)))
