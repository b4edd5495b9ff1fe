"""`init NAME --from PICTURES`: what it writes is a sound recipe but for the models that `pretrain` makes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from common.config.load import load_recipe, with_changes
from common.paths import CHECKOUT
from deploy.__main__ import main
from deploy.own_recipe import write
from deploy.pretraining.preflight import require_ready, stages_of
from deploy.service.check import check

SHIPPED = CHECKOUT / "deploy" / "recipes" / "tiny"
DRAWN = SHIPPED / "pictures"
MODELS = ("tokenizer.checkpoint", "policy.checkpoint", "evaluation.classifier")


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Models are kept in it, too."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(write, "models_folder", lambda name: folder / "models" / name)
    return folder


def init(*words: object) -> int:
    return main(["init", *(str(word) for word in words)])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert init(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def folder_of(parent: Path, *classes: str, num: int = 10, side: int = 40) -> Path:
    draws = np.random.default_rng(0)
    for name in classes:
        (parent / name).mkdir(parents=True)
        for number in range(num):
            pixels = draws.integers(256, size=(side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(parent / name / f"{number}.png")
    return parent


def test_the_recipe_is_sound_and_what_it_lacks_is_named_with_the_command(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init("tried-here", "--from", DRAWN) == 0
    assert capsys.readouterr().out.splitlines()[0] == "wrote tried-here.yaml: 32 pictures of 4 classes, at 64 px"
    recipe = load_recipe("tried-here.yaml")
    assert (recipe.run.name, recipe.image_size, recipe.policy.num_classes, recipe.grid_size) == (
        "tried-here",
        64,
        4,
        8,
    )
    assert recipe.source.path == "deploy/recipes/tiny/pictures"  # in the checkout: the same on every node
    missing = {finding.subject: finding.problem for finding in check(recipe) if finding.problem}
    assert missing.keys() == {"tokenizer", "policy", "features"}
    assert all("run this: python -m deploy pretrain tried-here.yaml; " in problem for problem in missing.values())
    models = {key: str(working_folder / key) + ".safetensors" for key in MODELS}
    recipe = with_changes(recipe, models | {"run.dir": str(working_folder / "runs")})
    require_ready(recipe, stages_of(recipe), overwrite=False)


def test_the_next_three_commands_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    init("shapes", "--from", DRAWN)
    commands = [line.split()[:5] for line in capsys.readouterr().out.splitlines()[2:]]
    assert commands == [
        ["python", "-m", "deploy", "pretrain", "shapes.yaml"],
        ["python", "-m", "deploy", "train", "shapes.yaml"],
        ["python", "-m", "deploy", "report", "runs/shapes"],
    ]


def test_what_is_there_is_never_overwritten(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (working_folder / "shapes.yaml").write_text("mine")
    assert refusal(capsys, "shapes", "--from", DRAWN).startswith("shapes.yaml is there, of an earlier recipe")
    assert (working_folder / "shapes.yaml").read_text() == "mine"
    (working_folder / "models" / "old").mkdir(parents=True)
    assert "models/old is there, of an earlier recipe: choose another NAME" in refusal(
        capsys, "old", "--from", DRAWN
    )


@pytest.mark.parametrize("name", ["2024", "on", "a.b-c", "1e5"])
def test_a_name_that_yaml_reads_otherwise_is_quoted(name: str) -> None:
    assert init(name, "--from", DRAWN) == 0
    assert yaml.safe_load(Path(f"{name}.yaml").read_text())["run"]["name"] == name


@pytest.mark.parametrize("name", ["", "a/b", "-a", ".a", "a b", "ä"])
def test_a_name_that_no_run_can_have_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "--from", DRAWN, "--", name).startswith(f"NAME is {name!r}: use letters, digits")


def test_odd_names_of_folders_stay_in_their_comment(tmp_path: Path) -> None:
    pictures = folder_of(tmp_path / "my: pictures # 1\n2", "a\nb: {", "ü", "#c", 'd"')
    assert init("odd", "--from", pictures) == 0
    recipe = load_recipe("odd.yaml")
    assert recipe.source.path == str(pictures)
    assert recipe.policy.num_classes == 4


def test_small_pictures_give_a_small_recipe(tmp_path: Path) -> None:
    init("small", "--from", folder_of(tmp_path / "pictures", "a", "b", side=28))
    recipe = load_recipe("small.yaml")
    assert (recipe.image_size, recipe.grid_size, recipe.pretrain.tokenizer.batch_size) == (32, 8, 16)
    assert "the median picture's short side is 28" in Path("small.yaml").read_text()


@pytest.mark.parametrize(("size", "grid"), [(32, 8), (40, 10), (64, 8), (96, 6), (128, 8), (256, 8), (384, 12)])
def test_the_size_asked_for_is_cut_into_about_eight_tokens_a_side(size: int, grid: int) -> None:
    assert init("sized", "--from", DRAWN, "--image-size", size) == 0
    recipe = load_recipe("sized.yaml")
    assert (recipe.image_size, recipe.grid_size) == (size, grid)


@pytest.mark.parametrize("size", [0, 16, 50, -64])
def test_a_size_that_no_tokenizer_takes_is_refused(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "sized", "--from", DRAWN, f"--image-size={size}") == (
        f"--image-size is {size}: use a multiple of 8, 32 or more"
    )


def test_one_class_does_without_a_classifier_and_scores(tmp_path: Path) -> None:
    init("one", "--from", folder_of(tmp_path / "pictures", "a", num=24))
    recipe = load_recipe("one.yaml")
    assert (recipe.policy.num_classes, recipe.evaluation.enabled, recipe.pretrain.classifier) == (1, False, None)


def test_shards_give_their_size_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = tmp_path / "shards"
    assert main(["prepare", str(DRAWN), str(shards), "--image-size", "48", "--workers", "0"]) == 0
    assert init("shards", "--from", shards) == 0
    recipe = load_recipe("shards.yaml")
    assert (recipe.source.kind, recipe.image_size, recipe.policy.num_classes) == ("parquet", 48, 4)
    capsys.readouterr()
    refused = refusal(capsys, "other", "--from", shards, "--image-size", "64")
    assert refused == "--image-size is 64, and the shards hold images of 48 px: prepare anew"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "has no pictures (.bmp"),
        (lambda folder: (folder / "a").mkdir(), "has no pictures (.bmp"),
        (lambda folder: shutil.copy(DRAWN / "circle/00.png", folder), "has pictures and no sub-folders of pic"),
        (
            lambda folder: (folder / "0.tar").touch(),
            "has tars or tables: run this first: python -m deploy prepare",
        ),
        (lambda folder: folder_of(folder, "a", num=3), "has 3 pictures: a generator learns nothing from fewer"),
    ],
)
def test_a_folder_that_nothing_can_be_learned_from_is_refused(
    make, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    assert refusal(capsys, "none", "--from", folder).startswith(f"--from {folder} {words}")
    assert not Path("none.yaml").exists()


def test_what_is_no_folder_or_holds_captions_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert " is not there: name a folder" in refusal(capsys, "none", "--from", tmp_path / "gone")
    assert " is a file: name a folder" in refusal(capsys, "none", "--from", SHIPPED / "make.py")
    assert "holds captions, and init writes recipes for classes" in refusal(
        capsys, "none", "--from", SHIPPED / "captioned"
    )


def test_a_folder_that_cannot_be_written_to_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(write, "recipe_path", lambda name: tmp_path / "file" / f"{name}.yaml")
    assert "none.yaml cannot be written" in refusal(capsys, "none", "--from", DRAWN)


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = folder_of(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), "a", "b")
    assert "is no UTF-8, which a recipe is: rename the folder" in refusal(capsys, "none", "--from", pictures)
