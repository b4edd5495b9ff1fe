"""Prompts from files."""

from pathlib import Path

import pytest

from common.errors import DataError
from deploy.sampling.prompts import Prompt, prompts_sha256, read_prompts


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("drawbench.json", '["a red photo", "green grass"]'),
        ("hpd.json", '[{"prompt": "a red photo", "id": 1}, {"prompt": "green grass"}]'),
        ("DrawBench.csv", 'Prompts,Category\n"a red photo",Colors\ngreen grass,Colors\n,\n'),
        ("parti.tsv", "Category\tPrompt\nColors\ta red photo\nColors\tgreen grass\n"),
    ],
)
def test_benchmarks_are_read_as_they_are_published(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert [prompt.text for prompt in read_prompts(tmp_path / name)] == ["a red photo", "green grass"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"prompt": "x"}', "is no JSON list"),
        ("a.json", '["x", 3]', r'entry 2 of .* is no JSON object with a text "prompt": 3'),
        ("a.csv", "Text,Category\nx,y\n", "has the columns text, category: one must be named Prompts or prompt"),
    ],
)
def test_another_format_of_a_benchmark_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_prompts(tmp_path / name)


def test_the_digest_is_of_the_lines_in_order(prompt_file: Path) -> None:
    prompts = read_prompts(prompt_file)
    assert prompts_sha256(prompts) == prompts_sha256(read_prompts(prompt_file))
    assert prompts_sha256(prompts) != prompts_sha256(prompts[::-1])
