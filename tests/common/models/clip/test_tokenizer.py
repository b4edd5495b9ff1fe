"""The tokenizer against open_clip's, over the published vocabulary (which open_clip brings) and a small one."""

import gzip
from pathlib import Path

import open_clip
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import CheckpointError
from common.models.clip.tokenizer import ClipTokenizer, learned_merges, load_tokenizer
from tests.clips import VOCABULARY

PUBLISHED = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
SETTING = "reward_models.vocabulary"
OURS = load_tokenizer(PUBLISHED, 49408, 77, setting=SETTING)
THEIRS = open_clip.SimpleTokenizer(context_length=77)


def test_a_known_sentence_has_its_published_ids() -> None:
    (row,) = OURS(["a photo of a cat"]).tolist()
    assert row[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert row[7:] == [0] * 70


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200).filter(lambda text: "_of_text>" not in text.lower()))
@example("A dog's 3½ bones — “fine”, isn't it? I'LL go & <b>run</b> &lt;3 ǅ Ⅷ ²")
@example("photographie d'un château, 東京の猫, café ﬁ naïve 🐈‍⬛ x_y __init__")
@example("a very long prompt of a green bus on the left of a red bus, " * 30)
@example("\x00\ufeff \u200d\u2028 ſ İ ß ŉ")
def test_any_text_has_the_ids_of_open_clip(text: str) -> None:
    assert OURS([text]).tolist() == THEIRS([text]).tolist()


def test_a_text_that_is_too_long_is_cut_and_keeps_its_end() -> None:
    row = OURS(["cat " * 100])[0].tolist()
    assert row[0], row[-1] == (49406, 49407)
    assert row[1:76] == [2368] * 75


def test_a_small_network_knows_the_first_merges(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(vocabulary, VOCABULARY, 8, setting=SETTING)
    theirs = open_clip.SimpleTokenizer(str(vocabulary), context_length=8)
    texts = ["a red cat", "acat on the 12", "cat " * 9]
    assert tokenizer(texts).tolist() == theirs(texts).tolist()
    fewer = load_tokenizer(vocabulary, VOCABULARY - 2, 8, setting=SETTING)
    assert fewer(["cat"])[0, 0] == VOCABULARY - 4
    assert isinstance(fewer, ClipTokenizer)


def test_merges_are_learned_from_the_commonest_neighbours_until_words_are_whole() -> None:
    texts = ["Low lower", "low", "lowest"]
    assert learned_merges(texts, 3) == [("l", "o"), ("lo", "w"), ("lo", "w</w>")]
    assert learned_merges(reversed(texts), 3) == learned_merges(texts, 3)
    everything = learned_merges(texts, 100)
    assert len(everything) == 7
    words = ClipTokenizer(everything, 4)(["low", "lower", "lowest", "low est"])
    assert (words > 0).sum(dim=1).tolist() == [3, 3, 3, 4]


def test_merges_of_transformers_are_the_same_list(tmp_path: Path) -> None:
    lines = gzip.decompress(PUBLISHED.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    other = load_tokenizer(tmp_path / "merges.txt", 49408, 77, setting=SETTING)
    texts = ["a photo of an astronaut riding a horse", "#version: 0.2"]
    assert other(texts).tolist() == OURS(texts).tolist()


def test_a_vocabulary_that_is_missing_or_too_short_says_which_is_needed(tmp_path: Path, vocabulary: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"gone/merges\.txt: point reward_models\.vocabulary at the merges of B/32\.$"
    ):
        load_tokenizer("gone/merges.txt", 49408, 77, setting=SETTING, wanted="the merges of B/32")
    with pytest.raises(
        CheckpointError, match=r"holds 11 merges and the network knows 48,894: point reward_models"
    ):
        load_tokenizer(vocabulary, 49408, 77, setting=SETTING)
    broken = tmp_path / "broken.txt.gz"
    broken.write_bytes(b"\x1f\x8bno")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(broken, 49408, 77, setting=SETTING)
