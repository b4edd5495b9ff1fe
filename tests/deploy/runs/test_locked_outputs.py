"""`sample`, `prepare`, `pretrain` and `ablate` into a folder that another process fills end at once, naming it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.paths import CHECKOUT
from deploy.__main__ import main
from deploy.runs import run_lock

HOLD = (
    "import sys; from pathlib import Path; from deploy.runs.run_lock import lock_output\n"
    "with lock_output(Path(sys.argv[1]), 'another', '--out'):\n    print('held', flush=True)\n    sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.0)


@contextmanager
def filled_by_another(folder: Path) -> Iterator[int]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def command_line(recipe: Recipe, tmp_path: Path) -> Callable[[str], tuple[list[str], Path, str]]:
    """Of a command: its arguments, the folder that it fills, and the setting that names it."""
    stage = {"num_steps": 1, "batch_size": 2, "lr": 1e-3}
    weights = tmp_path / "weights"
    models = {f"{name}.checkpoint": str(weights / f"{name}.safetensors") for name in ("tokenizer", "policy")}
    scratch = models | {"pretrain": {"tokenizer": stage, "policy": stage}}
    scratch |= {"perceptual": {"family": "shift_tolerant_lpips"}, "run.dir": str(tmp_path / "runs")}
    write_json(tmp_path / "scratch.json", with_changes(recipe, scratch).model_dump(mode="json"))
    scored = with_changes(recipe, {"evaluation.classifier": "classifier.safetensors"})
    write_json(tmp_path / "recipe.json", scored.model_dump(mode="json"))
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    study = {"name": "mini", "question": "?", "recipe": str(tmp_path / "recipe.json"), "variants": {"all": {}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study | {"seeds": [0], "scores": ["fd"]}))

    def of(command: str) -> tuple[list[str], Path, str]:
        out, scratch_file = tmp_path / "out", str(tmp_path / "scratch.json")
        return {
            "sample": (["sample", str(tmp_path / "recipe.json"), "--out", str(out)], out, "--out"),
            "prepare": (
                ["prepare", str(tmp_path), str(out), "--image-size", "32", "--workers", "0"],
                out,
                "OUTPUT",
            ),
            "pretrain": (["pretrain", scratch_file], tmp_path / "runs" / f"pretrain-{recipe.run.name}", "run.dir"),
            "its weights": (["pretrain", scratch_file], weights, "tokenizer.checkpoint"),
            "ablate": (["ablate", str(tmp_path / "study.yaml"), "--out", str(out)], out, "--out"),
        }[command]

    return of


@pytest.mark.parametrize("command", ["sample", "prepare", "pretrain", "its weights", "ablate"])
def test_the_second_of_two_ends_at_once_and_names_the_first(
    command: str,
    command_line: Callable[[str], tuple[list[str], Path, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, folder, setting = command_line(command)
    with filled_by_another(folder) as pid:
        assert main(arguments) == 2
        written = [path.name for path in folder.iterdir()]
    (error,) = capsys.readouterr().err.splitlines()
    assert f"error: `{arguments[0]}` into {folder} is at work (process {pid} on " in error
    assert error.endswith(f"wait for its end, or name another folder by {setting}")
    assert written == [run_lock.LOCK]
