"""`python -m deploy prepare`, as a user calls it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UserError
from deploy.__main__ import main
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from tests.deploy.prepare.conftest import shard_bytes, skipped

Make = Callable[..., PrepareOptions]


def call(*words: object) -> int:
    return main(["prepare", *(str(word) for word in words)])


def test_it_says_how_far_it_is_and_what_it_made(
    as_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(as_folder, out, "--image-size", 16, "--shard-size", 80, "--workers", 0) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "4 classes (ant, bee, cat, dog)",
        f"197 pictures in 3 shards at {out}",
        f"3 skipped, listed in {out / 'skipped.jsonl'}: 3 x image file is truncated",
    ]
    assert "shard 3/3  197 pictures  3 skipped" in shown.err


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "nothing", tmp_path / "out", "--image-size", 16, "--workers", 0) == 2
    assert capsys.readouterr().err.startswith("error: there is nothing at ")
    assert call(tmp_path, tmp_path / "out", "--image-size", 0) == 2
    assert capsys.readouterr().err == "error: --image-size is 0: it must be at least 1\n"


def test_words_that_belong_to_no_option_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(tmp_path, tmp_path / "out", "--image-size", 16, "key=value")
    assert "unrecognized arguments: key=value" in capsys.readouterr().err


def test_class_ids_and_captions_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder of shards has one of the two"):
        PrepareOptions(tmp_path, tmp_path, 16, label_column="label", text_encoder="t5")


@pytest.mark.ray
@pytest.mark.usefixtures("no_ray")
def test_ray_tasks_make_the_same_bytes_as_this_process(as_tars: Path, options: Make, tmp_path: Path) -> None:
    alone = options(as_tars, output=tmp_path / "alone")
    together = options(as_tars, output=tmp_path / "together", workers=2)
    prepare(alone)
    prepare(together)
    assert shard_bytes(together.output) == shard_bytes(alone.output)
    assert skipped(together.output) == skipped(alone.output)
