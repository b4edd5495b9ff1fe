"""Prompts from files, and their features."""

from pathlib import Path

import numpy as np
import pytest

from common.config.recipe import Recipe
from common.errors import DataError
from common.models.t5.text_encoder import TextEncoder
from deploy.sampling import prompts as module
from deploy.sampling.prompts import Prompt, encode_prompts, prompts_sha256, read_prompts, require_width


def test_a_jsonl_file_keeps_its_own_lines(prompt_file: Path) -> None:
    assert read_prompts(prompt_file) == [
        Prompt("a red photo", '{"tag": "colors", "prompt": "a red photo"}', True),
        Prompt("green grass", '{"tag": "colors", "prompt": "green grass"}', True),
    ]


def test_a_text_file_has_a_prompt_a_line_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("  a red photo \r\n\n{ grün\u2028grass }\n".encode())
    assert [prompt.text for prompt in read_prompts(path)] == ["a red photo", "{ grün\u2028grass }"]
    assert not any(prompt.is_json for prompt in read_prompts(path))


@pytest.mark.parametrize("line", ["a red photo", '{"text": "a red photo"}', '{"prompt": 3}', '["prompt"]'])
def test_a_line_without_a_prompt_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(DataError, match=r'line 2 of .*prompts.jsonl is no JSON object with a text "prompt": '):
        read_prompts(path)


def test_a_file_without_prompts_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"empty.txt holds no prompt"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"gone.txt is not a readable text file"):
        read_prompts(tmp_path / "gone.txt")


def test_features_are_those_that_prepare_stores_cut_to_the_policys_length(
    tiny_t5: Path, text_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    texts = ["a red photo", "A <b>red</b> photo", "green grass", "blue " * 20, "of"]
    prompts = [Prompt(text, text, False) for text in texts]
    features = encode_prompts(prompts, str(tiny_t5), text_recipe.policy)
    assert [features_LD.shape for features_LD in features] == [(4, 16), (4, 16), (3, 16), (6, 16), (2, 16)]
    stored = TextEncoder(str(tiny_t5), 6).features(texts[:2])
    np.testing.assert_array_equal(features[0], stored[0])
    np.testing.assert_array_equal(features[1], stored[1])


def test_an_encoder_of_another_width_is_refused(tiny_t5: Path, recipe: Recipe) -> None:
    with pytest.raises(DataError, match=r"features 16 wide and policy.caption_dim is 2048"):
        require_width(str(tiny_t5), recipe.policy)


def test_the_digest_is_of_the_lines_in_order(prompt_file: Path) -> None:
    prompts = read_prompts(prompt_file)
    assert prompts_sha256(prompts) == prompts_sha256(read_prompts(prompt_file))
    assert prompts_sha256(prompts) != prompts_sha256(prompts[::-1])
