"""A relative path of a recipe means the same file in every process, and equal code has an equal digest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import paths
from common.paths import CHECKOUT, code_fingerprint, resolve


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of two files."""
    for name in ("actors/a.py", "common/models/b.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    code_fingerprint.cache_clear()
    yield tmp_path
    code_fingerprint.cache_clear()


def anew() -> str:
    code_fingerprint.cache_clear()
    return code_fingerprint()


def test_relative_paths_are_taken_from_the_checkout_and_not_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("deploy/recipes/mnist.yaml") == CHECKOUT / "deploy" / "recipes" / "mnist.yaml"
    assert resolve("deploy/recipes/mnist.yaml").is_file()


def test_absolute_paths_and_the_home_folder_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("/data/pictures") == Path("/data/pictures")
    assert resolve("~/pictures") == Path("/home/somebody/pictures")


def test_the_digest_of_the_code_is_twelve_hex_digits_and_the_same_twice(checkout: Path) -> None:
    assert len(anew()) == 12
    assert int(anew(), 16) >= 0
    assert anew() == anew()


def test_the_digest_changes_with_a_line_a_name_and_a_file(checkout: Path) -> None:
    seen = {anew()}
    (checkout / "actors" / "a.py").write_text("# other\n")
    seen.add(anew())
    (checkout / "actors" / "a.py").rename(checkout / "actors" / "c.py")
    seen.add(anew())
    (checkout / "learner").mkdir()
    (checkout / "learner" / "d.py").touch()
    seen.add(anew())
    assert len(seen) == 4


def test_the_digest_does_not_change_with_files_that_are_no_code(checkout: Path) -> None:
    before = anew()
    (checkout / "actors" / "__pycache__").mkdir()
    (checkout / "actors" / "__pycache__" / "a.pyc").touch()
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_a.py").touch()
    assert anew() == before
