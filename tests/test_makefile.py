"""`make` alone shows what it can do."""

import re
import shutil
import subprocess

import pytest

from common.paths import CHECKOUT


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("words", [[], ["help"]])
def test_it_shows_every_target_with_a_line_each(words: list[str]) -> None:
    said = subprocess.run(["make", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    shown = [line.split()[:2] for line in said.splitlines() if line.startswith("make ")]
    assert shown == [["make", target] for target in phony.split()]
    assert all(len(line.split()) > 3 for line in said.splitlines() if line.startswith("make "))
