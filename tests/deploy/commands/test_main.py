"""The command line: mistakes end with code 2 and one line each on standard error."""

import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

from common.paths import CHECKOUT
from deploy.__main__ import COMMANDS, main
from tests.common.test_atomic import no_file_above


def errors(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """What a command that must fail says on standard error."""
    assert main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def test_an_unknown_key_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert errors(capsys, "train", recipe_file, "learner.lrr=1") == [
        f"{recipe_file}: learner.lrr is not a recipe key: did you mean learner.lr?"
    ]


def test_a_buffer_too_small_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(capsys, "train", recipe_file, "buffer.max_staleness=2", "buffer.max_bytes=1000")
    assert "buffer.max_bytes is 1000, but max_staleness 2 with 4 images a step keeps 12 groups" in line


def test_a_recipe_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(capsys, "check", "gone.yaml")
    assert line.startswith("no recipe at gone.yaml: name a file, or one of ar_grpo_xl_c2i, ")


def test_a_missing_checkpoint_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(
        capsys, "local", recipe_file, "policy.checkpoint=/nowhere/gone.pt", "policy.obtain_from=https://moon"
    )
    assert line.startswith("There is no policy weights file /nowhere/gone.pt: get it from https://moon, or point")


def test_a_checkpoint_of_another_shape_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(capsys, "local", recipe_file, "policy.num_classes=7")
    assert "cls_embedding.embedding_table.weight is [11, 16] and must be [8, 16]" in line


def test_a_data_set_of_no_pictures_is_one_line(
    recipe_file: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pictures.rglob("*.png"):
        path.write_text("not a picture")
    (line,) = errors(capsys, "local", recipe_file)
    assert line.startswith("none of the images tried can be read; the last: ")


def test_several_problems_are_a_line_each(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = errors(capsys, "local", recipe_file, "policy.checkpoint=gone.pt", "source.path=gone")
    assert [line.split()[0] for line in lines] == ["source.path", "There"]


def test_training_is_refused_before_ray_starts_or_a_folder_is_made(
    recipe_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def no_ray(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", no_ray)
    (line,) = errors(capsys, "train", recipe_file, "tokenizer.checkpoint=gone.pt")
    assert line.startswith("There is no tokenizer weights file ")
    assert not (tmp_path / "runs").exists()


def test_check_lists_every_subject_and_marks_what_is_wrong(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", recipe_file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", subject]
        for subject in (
            "source",
            "tokenizer",
            "policy",
            "profile",
            "reward",
            "perceptual",
            "preference",
            "features",
            "buffer",
            "checkpoints",
            "tracking",
            "resources",
        )
    ]
    assert main(["check", recipe_file, "policy.checkpoint=gone.pt"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * 2 + ["NO"] + ["ok"] * 9
    assert "There is no policy weights file" in lines[2]


def test_pretraining_without_its_section_is_one_line(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(capsys, "pretrain", recipe_file)
    assert line.startswith("this recipe has no `pretrain` section")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--num", "0"], "--num is 0: ask for at least 1 picture"),
        (["--seed", "-1"], "--seed is -1: seeds are 0 or above"),
        (["--layout", "geneval"], "--layout geneval is given without --prompts: name a file of prompts too"),
        (["--prompts", "p.txt", "--text-encoder", "t5"], "policy.conditioning is class: --prompts needs a text"),
        (["--checkpoint", "/nowhere"], "There is no policy weights file /nowhere: point --checkpoint at a"),
    ],
)
def test_options_of_sample_are_checked(
    options: list[str], sentence: str, recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "samples"
    (line,) = errors(capsys, "sample", recipe_file, "--out", str(out), *options)
    assert line.startswith(sentence)
    assert not out.exists()


def test_a_checkpoint_that_is_not_there_is_no_reason_to_train_the_recipes_own(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "runs/none/checkpoints/step-000100"
    line, *_ = errors(capsys, "evaluate", "mnist", "--checkpoint", gone)
    assert line == f"There is no policy weights file {CHECKOUT / gone}: point --checkpoint at a file that exists."


def test_scores_need_a_classifier(recipe_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = errors(capsys, "evaluate", recipe_file)
    assert line.startswith("evaluation.classifier names no weights file")


@pytest.mark.parametrize(
    "argv", [["zzz=1", "--num", "3"], ["--num", "3", "zzz=1"], ["seed=1", "--num", "3", "zzz=1"]]
)
def test_overrides_may_stand_before_and_after_options(
    argv: list[str], recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = errors(capsys, "sample", recipe_file, *argv)
    assert line.startswith(f"{recipe_file}: zzz is not a recipe key")


def ended(code: int, *argv: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["frobnicate"], "there is no command frobnicate: `python -m deploy` lists them all"),
        (["trian", "mnist"], "there is no command trian: did you mean train? `python -m deploy` lists them all"),
        (["Train"], "there is no command Train: did you mean train? `python -m deploy` lists them all"),
        (["check", "r.yaml", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["evaluate", "r.yaml", "--chekpoint=x"], "arguments: --chekpoint=x (did you mean --checkpoint?)"),
        (["report", "x", "--uot", "y"], "arguments: --uot y (did you mean --out?)"),
        (["check"], "the following arguments are required: RECIPE"),
        (["replay"], "the following arguments are required: RUN"),
        (["ablate"], "the following arguments are required: STUDY"),
    ],
)
def test_unknown_commands_and_options_end_with_code_2_the_usage_and_what_was_meant(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(2, *argv)
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m deploy")
    assert said.endswith(f"{sentence}\n")


@pytest.mark.parametrize("argv", [[], ["help"], ["--help"]])
def test_without_a_command_all_are_listed_with_a_line_each(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended(0, *argv)
    listed = capsys.readouterr().out.partition("  COMMAND\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(len(line.split()) > 2 for line in listed)


def test_help_of_a_command_is_the_same_by_either_word(capsys: pytest.CaptureFixture[str]) -> None:
    ended(0, "help", "report")
    said = capsys.readouterr().out
    ended(0, "report", "--help")
    assert capsys.readouterr().out == said
    assert said.startswith("usage: python -m deploy report [-h]")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ended(0, "--version")
    assert capsys.readouterr().out.startswith("va-pi-ray 0.1.0 (code ")


def test_a_shipped_recipe_is_found_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "mnist"]) == 0
    by_name = capsys.readouterr().out
    assert main(["plan", str(CHECKOUT / "deploy/recipes/mnist.yaml")]) == 0
    assert capsys.readouterr().out == by_name


def test_a_mistake_of_ours_shows_its_traceback(recipe_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("deploy.runs.local_run.run_local", broken)
    with pytest.raises(ZeroDivisionError):
        main(["local", recipe_file])


def test_a_place_that_cannot_be_written_is_one_line(
    recipe_file: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    (line,) = errors(capsys, "sample", recipe_file, "--num", "2", "--out", str(taken / "samples"))
    said = "cannot be made (Not a directory): set {} to a folder that can be written to"
    assert line == f"the folder {taken / 'samples'} {said.format('--out')}"
    prepared = ("prepare", str(pictures), str(taken / "shards"), "--image-size", "16", "--workers", "0")
    (line,) = errors(capsys, *prepared)
    assert line == f"the folder {taken / 'shards'} {said.format('OUTPUT')}"


def test_a_full_disk_is_one_line(recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with no_file_above(100):
        (line,) = errors(capsys, "local", recipe_file, f"run.dir={tmp_path / 'runs'}")
    assert "recipe.json cannot be used (File too large): make room, or name another place" in line


def test_an_interrupt_ends_with_code_130(
    recipe_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy.runs.local_run.run_local", interrupted)
    assert main(["local", recipe_file]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_is_quick_and_imports_neither_torch_nor_ray() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['deploy', '--help']\n"
        "try:\n    runpy.run_module('deploy', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print('HEAVY', sorted({'torch', 'ray', 'numpy', 'pydantic', 'yaml'} & sys.modules.keys()))"
    )
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = perf_counter()
        result = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
        seconds.append(perf_counter() - start)
        assert result.returncode == 0, result.stderr
    assert min(seconds) < 1
    assert result.stdout.endswith("HEAVY []\n")
    for command in ("train", "local", "check", "sample", "evaluate", "pretrain"):
        assert f"\n    {command} " in result.stdout


def test_without_packages_the_list_of_commands_is_shown_and_a_command_says_how_to_get_them() -> None:
    python = [sys.executable, "-S", "-m", "deploy"]  # -S: without site-packages
    listed = subprocess.run(python, cwd=CHECKOUT, capture_output=True, text=True)
    assert (listed.returncode, "pretrain" in listed.stdout) == (0, True)
    result = subprocess.run([*python, "check", "mnist"], cwd=CHECKOUT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert re.match(r"error: the package \w+ is not installed for ", line)
    assert line.endswith("use .venv/bin/python, which `make install` sets up")
