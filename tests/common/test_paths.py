"""A relative path of a recipe means the same file in every process, wherever it runs."""

from pathlib import Path

import pytest

from common.paths import CHECKOUT, resolve


def test_relative_paths_are_taken_from_the_checkout_and_not_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("deploy/recipes/demo.yaml") == CHECKOUT / "deploy" / "recipes" / "demo.yaml"
    assert resolve("deploy/recipes/demo.yaml").is_file()


def test_absolute_paths_and_the_home_folder_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("/data/pictures") == Path("/data/pictures")
    assert resolve("~/pictures") == Path("/home/somebody/pictures")
