"""An interrupted call is gone on with, to the same bytes; a call that asks for something else is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import DataError
from common.image_shards import ShardFacts, read_facts
from deploy.prepare import shard
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from deploy.prepare.shard import ShardWork, make_shard
from tests.deploy.prepare.conftest import shard_bytes, skipped

Make = Callable[..., PrepareOptions]


class Counting:
    """Makes shards, and remembers which."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, work: ShardWork) -> ShardFacts:
        self.made.append(work.path.name)
        return make_shard(work)


def interrupt_at_picture(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1, 1000))
    read_picture = shard.read_picture

    def read_or_stop(*arguments: Any) -> Any:
        if next(numbers) == number:
            raise KeyboardInterrupt
        return read_picture(*arguments)

    monkeypatch.setattr(shard, "read_picture", read_or_stop)


@pytest.mark.parametrize("kind", ["folder", "tars", "parquet"])
def test_interrupted_and_gone_on_with_gives_the_same_bytes(
    kind: str, options: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(f"as_{kind}")
    whole, cut = options(path, output=tmp_path / "whole"), options(path, output=tmp_path / "cut")
    prepare(whole)

    with pytest.MonkeyPatch.context() as patch:
        interrupt_at_picture(130, patch)  # within the third shard
        with pytest.raises(KeyboardInterrupt):
            prepare(cut)
    left = sorted(file.name for file in cut.output.iterdir())
    assert left == ["settings.json", "shard-00000.parquet", "shard-00001.parquet"]

    making = Counting()
    assert prepare(cut, making).num_rows == 197
    assert making.made == ["shard-00002.parquet", "shard-00003.parquet"]
    assert shard_bytes(cut.output) == shard_bytes(whole.output)
    assert skipped(cut.output) == skipped(whole.output)
    assert (cut.output / "manifest.json").read_bytes() == (whole.output / "manifest.json").read_bytes()


def test_a_second_call_makes_nothing_and_a_damaged_or_missing_shard_anew(as_folder: Path, options: Make) -> None:
    asked, making = options(as_folder), Counting()
    prepare(asked)
    before = shard_bytes(asked.output)
    prepare(asked, making)
    assert making.made == []
    (asked.output / "shard-00001.parquet").write_bytes(before["shard-00001.parquet"][:-100])
    (asked.output / "shard-00003.parquet").unlink()
    (asked.output / ".shard-00001.parquet.123.tmp").write_bytes(b"of a call that was killed")
    prepare(asked, making)
    assert making.made == ["shard-00001.parquet", "shard-00003.parquet"]
    assert shard_bytes(asked.output) == before
    assert list(asked.output.glob(".*")) == []


def test_a_shard_carries_what_it_skipped(as_folder: Path, options: Make) -> None:
    asked = options(as_folder)
    prepare(asked)
    facts = read_facts(asked.output / "shard-00002.parquet")
    assert facts is not None
    assert (facts.num_rows, facts.max_label, [name for name, _ in facts.skipped]) == (49, 2, ["cat/100.png"])
    assert read_facts(asked.output / "no-such.parquet") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 8}, "made with --image-size 16, and this call has 8"),
        ({"min_side": 5}, "made with --min-side 0, and this call has 5"),
        ({"shard_size": 40}, "made with --shard-size 50, and this call has 40"),
        ({"kind": "parquet"}, "made with --kind folder, and this call has parquet"),
    ],
)
def test_other_settings_are_refused(
    changes: dict[str, Any], said: str, as_folder: Path, as_parquet: Path, options: Make
) -> None:
    prepare(options(as_folder))
    with pytest.raises(DataError, match=said):
        prepare(options(as_parquet if "kind" in changes else as_folder, **changes))


def test_an_input_that_has_changed_is_refused(options: Make, as_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "ant").mkdir(parents=True)
    for name in ("1", "2"):
        (root / "ant" / f"{name}.png").write_bytes((as_folder / "ant" / "001.png").read_bytes())
    prepare(options(root))
    (root / "ant" / "2.png").write_bytes((as_folder / "ant" / "002.png").read_bytes() + b"x")
    with pytest.raises(DataError, match="made with sha256 of the input's listing"):
        prepare(options(root))


def test_a_folder_with_something_else_in_it_is_left_alone(as_folder: Path, options: Make) -> None:
    asked = options(as_folder)
    asked.output.mkdir()
    (asked.output / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no shards"):
        prepare(asked)
    assert [path.name for path in asked.output.iterdir()] == ["notes.txt"]


def test_the_settings_are_readable(as_folder: Path, options: Make) -> None:
    asked = options(as_folder)
    prepare(asked)
    settings = json.loads((asked.output / "settings.json").read_text())
    assert settings["--image-size"] == 16
    assert settings["--text-encoder"] is None
    assert settings["items of the input"] == 200
