"""Prompts against the published template and ids."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from torch import from_numpy

from common.errors import DataError, UserError
from common.models.janus.conditions import PromptConditions
from common.models.janus.prompts import PromptTokenizer
from tests.common.models.janus.golden import DATA, POLICY, expected

PROMPTS = json.loads((DATA / "prompts.json").read_text())
FILE = DATA / "hf" / "tokenizer.json"


@pytest.mark.parametrize("path", [FILE, FILE.parent], ids=["file", "folder"])
def test_prompts_have_the_published_ids_and_columns(path: Path) -> None:
    golden, conditions = expected(), PromptConditions(POLICY)
    captions = [each["caption"] for each in PROMPTS["prompts"]]
    encoded = conditions.encode(captions, str(path))
    for row, (ids_2L, published) in enumerate(zip(encoded, PROMPTS["prompts"], strict=True)):
        assert ids_2L[0].tolist() == published["input_ids"]
        columns = conditions.of_caption(ids_2L)
        assert {name: (str(each.dtype), each.shape) for name, each in columns.items()} == conditions.columns
        for name in ("prompt_ids", "null_prompt_ids", "prompt_mask"):
            assert from_numpy(np.asarray(columns[name])).long().equal(golden[name][row]), name
        assert ids_2L.shape[1] == int(golden["prompt_lengths"][row])


def test_a_tokenizer_that_adds_special_tokens_by_itself_gives_bos_once(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(FILE))
    bos = PROMPTS["special_ids"]["<｜begin▁of▁sentence｜>"]
    tokenizer.post_processor = TemplateProcessing(
        single="<｜begin▁of▁sentence｜> $A", special_tokens=[("<｜begin▁of▁sentence｜>", bos)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = PromptTokenizer(tmp_path, 40).of_caption("snow")[0].tolist()
    assert ids == PROMPTS["prompts"][1]["input_ids"]


def test_the_caption_of_a_long_prompt_is_cut_and_the_template_is_whole() -> None:
    whole = PROMPTS["prompts"][0]["input_ids"]
    ids_2L = PromptTokenizer(FILE, 20).of_caption(PROMPTS["prompts"][0]["caption"])
    after = whole[-5:]  # two new lines, the assistant, a colon, the start of the image
    assert ids_2L[0].tolist() == whole[:15] + after
    assert ids_2L[1].tolist() == [whole[0]] + [PROMPTS["special_ids"]["<｜▁pad▁｜>"]] * 18 + [whole[-1]]


def test_an_empty_caption_and_too_little_room_are_refused() -> None:
    with pytest.raises(DataError, match="a caption is empty"):
        PromptTokenizer(FILE, 28).of_caption("  \n")
    with pytest.raises(UserError, match="prompts of 8 tokens have no room for a caption, because 9 are"):
        PromptTokenizer(FILE, 8)


def test_what_is_no_tokenizer_of_janus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*tokenizer\.json: name the tokenizer\.json"):
        PromptTokenizer(tmp_path / "tokenizer.json", 28)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer"):
        PromptTokenizer(tmp_path, 28)
    other = json.loads(FILE.read_text())
    text = json.dumps(other, ensure_ascii=False).replace("<begin_of_image>", "<other>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="has no token <begin_of_image>"):
        PromptTokenizer(tmp_path, 28)
