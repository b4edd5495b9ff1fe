"""Recipes and studies by name: what is shipped, and what the current folder has of the same name."""

import logging
import os
from pathlib import Path

import pytest

from common.config.load import load_recipe
from common.config.named_file import RECIPES, STUDIES, find_file, shipped_names
from common.errors import RecipeError

DEMO = RECIPES / "mnist.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("vapi"), "propagate", True)
    return caplog


@pytest.mark.parametrize("name", ["mnist", "mnist.yaml", "mnist.yml"])
def test_a_name_without_a_folder_is_that_of_a_shipped_file(name: str, said: pytest.LogCaptureFixture) -> None:
    assert find_file(name, RECIPES, "recipe") == DEMO
    assert load_recipe(name) == load_recipe(DEMO)
    assert not said.records


def test_every_shipped_file_has_a_name() -> None:
    for folder in (RECIPES, STUDIES):
        names = shipped_names(folder)
        assert {find_file(name, folder, "file") for name in names} == set(folder.glob("*.yaml"))
        assert names


@pytest.mark.parametrize("own", ["mnist", "mnist.yaml", "mnist.yml"])
def test_a_file_of_the_current_folder_comes_first_and_is_told(own: str, said: pytest.LogCaptureFixture) -> None:
    Path(own).write_text("seed: 1")
    assert find_file("mnist", RECIPES, "recipe") == Path(own)
    (record,) = said.records
    assert record.getMessage() == (
        f"recipe mnist is ./{own} of the current folder, not the shipped deploy/recipes/mnist.yaml"
    )


def test_nothing_is_told_where_only_one_can_be_meant(said: pytest.LogCaptureFixture) -> None:
    Path("mine.yaml").write_text("seed: 1")
    Path("mnist.yaml").write_text("seed: 1")
    Path("mnist").mkdir()
    assert find_file("mine", RECIPES, "recipe") == Path("mine.yaml")
    assert find_file("./mnist.yaml", RECIPES, "recipe") == Path("mnist.yaml")
    assert find_file(Path("mnist.yaml").absolute(), RECIPES, "recipe") == Path("mnist.yaml").absolute()
    os.chdir(RECIPES)
    assert find_file("mnist.yaml", RECIPES, "recipe").samefile(DEMO)
    assert not said.records


def test_a_folder_of_the_name_is_passed_by() -> None:
    Path("mnist").mkdir()
    assert find_file("mnist", RECIPES, "recipe") == DEMO


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mnsit", "no recipe at mnsit: did you mean mnist? name a file, or one of ar_grpo_xl_c2i, "),
        ("Mnist.yaml", "no recipe at Mnist.yaml: did you mean mnist? name a file, "),
        (
            "recipes/llamagen_xl_c2.yaml",
            "no recipe at recipes/llamagen_xl_c2.yaml: did you mean llamagen_xl_c2i? ",
        ),
        ("zzzzzz", "no recipe at zzzzzz: name a file, or one of ar_grpo_xl_c2i, "),
        ("", "no recipe at : it is a folder; name a file in it"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest_name(name: str, advice: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_file(name, RECIPES, "recipe")
    assert str(caught.value).startswith(advice)


def test_a_run_folder_is_told_where_its_recipe_is() -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/recipe.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"its recipe is runs/mine/recipe\.json"):
        find_file("runs/mine", RECIPES, "recipe")


def test_a_pipe_is_a_file_too() -> None:
    os.mkfifo("pipe")
    assert find_file("pipe", RECIPES, "recipe") == Path("pipe")
