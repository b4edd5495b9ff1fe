"""`evaluate`, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from deploy.__main__ import main

TEACHER_FORCED = {
    "held_out_reward",
    "held_out_mse",
    "held_out_psnr",
    "held_out_cross_entropy",
    "held_out_perplexity",
    "reconstruction_mse",
    "reconstruction_psnr",
}


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> str:
    """A recipe with a classifier, few pictures and few held-out images."""
    torch.manual_seed(0)
    save_weights(ImageClassifier(10).state_dict(), tmp_path / "classifier.safetensors")
    section = {"classifier": str(tmp_path / "classifier.safetensors"), "num_samples": 24, "num_held_out": 3}
    write_json(tmp_path / "r.json", with_changes(recipe, {"evaluation": section}).model_dump(mode="json"))
    return str(tmp_path / "r.json")


def scores(out: Path, *argv: str) -> dict[str, float]:
    assert main(["evaluate", *argv, "--out", str(out)]) == 0
    return json.loads(out.read_text())


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["evaluate", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_scores_are_printed_and_written_and_a_grid_beside_them(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores(tmp_path / "out" / "scores.json", recipe_file, "--json")
    assert set(found) == TEACHER_FORCED | {
        "fd",
        "inception_score",
        "accuracy",
        "precision",
        "recall",
        "nearest_training",
    }
    out, err = capsys.readouterr()
    assert json.loads(out) == found
    grid = tmp_path / "out" / "scores.png"
    progress, *wrote = err.splitlines()[-3:]
    assert progress.startswith("scoring the generator: 5/5  ")  # references of both splits, held-out twice, drawn
    assert wrote == [f"wrote {tmp_path / 'out' / 'scores.json'}", f"wrote {grid}"]
    with Image.open(grid) as picture:
        assert picture.size[1] > 3 * 32  # a row a held-out image


def test_the_table_says_of_every_score_which_is_better_and_a_grid_can_be_written_alone(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "reward.python={'tests.own_terms:Likeness': 1, 'tests.own_terms:darkness': 1}"
    grid = tmp_path / "a" / "grid.png"
    assert main(["evaluate", recipe_file, own, "--grid", str(grid)]) == 0
    held_out, free_running, legend = capsys.readouterr().out.split("\n\n")
    title, *rows = held_out.splitlines()
    assert title.split() == ["3", "held-out", "images,", "teacher-forced", "score", "ceiling", "better"]
    assert {row[:44].strip(): row[44:].split()[-1] for row in rows} == {
        "reward": "higher",
        "PSNR, dB": "higher",
        "cross-entropy": "lower",
        "perplexity": "lower",
        "MSE": "lower",
        "Likeness": "higher",
        "darkness": "lower",
    }
    assert [len(row[44:].split()) for row in rows] == [2, 3, 2, 2, 3, 3, 3]  # ceilings of what pictures have
    title, *rows = free_running.splitlines()
    assert title.split() == ["24", "free-running", "pictures", "score", "better"]
    assert [row[44:].split()[-1] for row in rows] == ["lower"] + ["higher"] * 5
    assert legend.splitlines()[-1] == f"wrote {grid}"
    assert [path.name for path in grid.parent.iterdir()] == ["grid.png"]


def test_given_pictures_are_scored_instead_of_drawn_ones(
    recipe_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = scores(tmp_path / "drawn.json", recipe_file)
    folder = tmp_path / "noise"
    folder.mkdir()
    pixels_NHWC = np.random.default_rng(0).integers(256, size=(24, 32, 32, 3), dtype=np.uint8)
    for index, pixels in enumerate(pixels_NHWC):
        Image.fromarray(pixels).save(folder / f"{index:06d}.png")
    np.savez(tmp_path / "noise.npz", arr_0=pixels_NHWC)

    def no_drawing(*_: object, **__: object) -> None:
        raise AssertionError("pictures were drawn")

    monkeypatch.setattr("actors.evaluation.chunks.sample_tokens", no_drawing)
    found = scores(tmp_path / "noise.json", recipe_file, "--pictures", str(folder))
    assert {name: found[name] for name in TEACHER_FORCED} == {name: drawn[name] for name in TEACHER_FORCED}
    assert found["fd"] != drawn["fd"]
    assert "accuracy" not in found  # noise of no class
    assert scores(tmp_path / "npz.json", recipe_file, "--pictures", str(tmp_path / "noise.npz")) == found


def test_a_path_without_pictures_is_refused(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no PNG files" in error(capsys, recipe_file, "--pictures", str(tmp_path / "empty"))
    assert "is neither a folder nor a readable .npz" in error(capsys, recipe_file, "--pictures", "gone")


@pytest.mark.slow
def test_over_inceptions_features_the_distance_is_fid_and_there_is_no_accuracy(
    recipe_file: str, inception_weights: Path, tmp_path: Path
) -> None:
    changes = [f"evaluation.inception_weights={inception_weights}", "evaluation.features=inception"]
    pixels_NHWC = np.random.default_rng(0).integers(256, size=(20, 32, 32, 3), dtype=np.uint8)
    for name in ("pictures", "reference"):
        np.savez(tmp_path / f"{name}.npz", arr_0=pixels_NHWC, labels=np.arange(20) % 10)
    given = ["--pictures", str(tmp_path / "pictures.npz")]
    changes.append(f"evaluation.reference={tmp_path / 'reference.npz'}")
    found = scores(tmp_path / "scores.json", recipe_file, *changes, *given)
    assert set(found) == TEACHER_FORCED | {"fid", "inception_score", "precision", "recall"}
    assert found["fid"] == pytest.approx(0, abs=0.01)  # equal pictures
    assert (found["precision"], found["recall"]) == (1, 1)
    assert found["inception_score"] > 1


def test_pictures_of_captions_have_no_classes_to_score(
    recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error(capsys, recipe_file, "policy.conditioning=text", "source={kind: parquet, path: shards}")
    assert line.startswith("evaluation.features is classifier, but policy.conditioning is text")
