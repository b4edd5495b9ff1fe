"""The digest of the code: equal for equal code, another for any change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import fingerprint
from common.fingerprint import code_fingerprint


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of two files."""
    for name in ("actors/a.py", "common/models/b.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(fingerprint, "CHECKOUT", tmp_path)
    code_fingerprint.cache_clear()
    yield tmp_path
    code_fingerprint.cache_clear()


def anew() -> str:
    code_fingerprint.cache_clear()
    return code_fingerprint()


def test_it_is_twelve_hex_digits_and_the_same_twice(checkout: Path) -> None:
    assert len(anew()) == 12
    assert int(anew(), 16) >= 0
    assert anew() == anew()


def test_it_changes_with_a_line_a_name_and_a_file(checkout: Path) -> None:
    seen = {anew()}
    (checkout / "actors" / "a.py").write_text("# other\n")
    seen.add(anew())
    (checkout / "actors" / "a.py").rename(checkout / "actors" / "c.py")
    seen.add(anew())
    (checkout / "learner").mkdir()
    (checkout / "learner" / "d.py").touch()
    seen.add(anew())
    assert len(seen) == 4


def test_it_does_not_change_with_files_that_are_no_code(checkout: Path) -> None:
    before = anew()
    (checkout / "actors" / "__pycache__").mkdir()
    (checkout / "actors" / "__pycache__" / "a.pyc").touch()
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_a.py").touch()
    assert anew() == before
