"""Whose a folder is, and what is said to others."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from deploy.runs.claimed_folder import claim

WORDS = {"file": "settings.json", "argument": "--out", "things": "pictures", "command": "sample"}


def refusal(folder: Path, settings: dict[str, Any]) -> str:
    with pytest.raises(DataError) as error:
        claim(folder, settings, **WORDS)
    return str(error.value)


def test_a_folder_keeps_the_settings_that_it_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        claim(folder, {"--seed": 3, "--layout": None}, **WORDS)
        claim(folder, {"--seed": 3, "--layout": None}, **WORDS)
        assert json.loads((folder / "settings.json").read_text()) == {"--seed": 3, "--layout": None}


def test_a_call_with_another_setting_or_one_more_or_one_less_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, {"--seed": 3}, **WORDS)
    assert refusal(tmp_path, {"--seed": 4}) == (
        f"--out {tmp_path} holds pictures made with --seed 3, and this call has 4: repeat the call that began it, "
        "name another folder, or remove that one"
    )
    assert "made with --layout none, and this call has flat" in refusal(
        tmp_path, {"--seed": 3, "--layout": "flat"}
    )
    assert "made with --seed 3, and this call has none" in refusal(tmp_path, {})


def test_a_folder_with_something_else_in_it_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for path in (tmp_path, tmp_path / "thesis.tex"):
        assert (
            refusal(path, {}) == f"--out {path} is not empty and holds no pictures of `sample`: name a new folder"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", [b"", b'{"--seed": ', b"[3]", b"\xff\xfe"])
def test_settings_that_are_no_longer_whole_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    assert refusal(tmp_path, {"--seed": 3}) == (
        f"--out: {tmp_path / 'settings.json'} does not hold the settings of a call any more: name another folder, "
        "or remove that one"
    )
