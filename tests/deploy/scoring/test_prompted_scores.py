"""`evaluate --scores`: pictures with prompts in every layout, by small CLIPs of random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.__main__ import main
from deploy.scoring.prompted_scores import spread
from tests.clips import reward_models

PROMPTS = ["a red cat", "the cat on the acat"]


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> str:
    models = reward_models(tmp_path).model_dump(mode="json")
    write_json(tmp_path / "r.json", with_changes(recipe, {"reward_models": models}).model_dump(mode="json"))
    return str(tmp_path / "r.json")


def draw(folder: Path, names: list[str], size: tuple[int, int] = (32, 32)) -> None:
    """Pictures of waves, of a colour of their own each."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[1], : size[0]]
    for number, name in enumerate(names):
        channels = [128 + 120 * np.sin((x * (number + 1) + y * shift) / 9) for shift in (1, 3, 5)]
        Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8)).save(folder / name)


def tree(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main(["evaluate", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["evaluate", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_eight_pictures_have_the_scores_written_down_here_in_each_layout(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{number:06d}.png" for number in range(8)]
    draw(tmp_path / "flat", names)
    (tmp_path / "flat" / "grid.png").write_bytes(b"not a picture")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    for prompt, text in enumerate(PROMPTS):
        folder = tmp_path / "geneval" / f"{prompt:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps({"tag": "single_object", "include": [], "prompt": text}))
        for number in range(4):
            drawn = tmp_path / "flat" / names[4 * prompt + number]
            shutil.copy(drawn, folder / "samples" / f"{number:05d}.png")
    asked = ["--scores", "aesthetic,clip,hps,pickscore"]
    flat = tree(
        capsys, recipe_file, "--pictures", f"{tmp_path}/flat", "--prompts", f"{tmp_path}/prompts.txt", *asked
    )
    geneval = tree(capsys, recipe_file, "--pictures", f"{tmp_path}/geneval", *asked)
    assert flat == geneval
    assert (flat["num_pictures"], flat["num_prompts"]) == (8, 2)
    assert list(flat["scores"]) == ["clip", "hps", "pickscore", "aesthetic"]
    assert flat["scores"] == pytest.approx(GOLDEN, abs=2e-4)
    assert flat["models"]["hps"] == "ViT-3x128/8 at 32 px, gelu, hps.pt"


GOLDEN = {"clip": -10.162370, "hps": -0.125823, "pickscore": 0.209453, "aesthetic": 0.172982}


def test_the_styles_of_hpd_have_a_row_each(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmark").mkdir()
    for style, count in (("anime", 10), ("photo", 3)):
        draw(tmp_path / "drawn" / style, [f"{number:05d}.jpg" for number in range(count)])
        write_json(tmp_path / "benchmark" / f"{style}.json", [f"a {word} cat" for word in "abcdefghij"[:count]])
    write_json(tmp_path / "benchmark" / "paintings.json", ["of a style that nobody drew"])
    argv = ["--pictures", f"{tmp_path}/drawn", "--prompts", f"{tmp_path}/benchmark", "--scores", "hps"]
    found = tree(capsys, recipe_file, *argv, "--out", f"{tmp_path}/scores.json")
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    assert (found["num_pictures"], list(found["groups"])) == (13, ["anime", "photo"])
    anime, photo = (found["groups"][style]["hps"] for style in ("anime", "photo"))
    assert found["scores"]["hps"] == pytest.approx((10 * anime["mean"] + 3 * photo["mean"]) / 13)
    assert anime["spread"] > 0
    assert photo["spread"] == 0
    assert main(["evaluate", recipe_file, *argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "13 pictures of 13 prompts; higher is better"
    assert [line.split()[0] for line in lines[1:4]] == ["HPS", "anime", "photo"]


def test_the_spread_is_that_of_the_means_of_ten_blocks() -> None:
    values = np.arange(800, dtype=np.float32) // 80
    assert spread(values) == pytest.approx(np.std(range(10)))
    assert spread(values[:9]) == 0


def test_pictures_of_different_sizes_are_scored_one_by_one_as_together(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "mixed", ["0.png", "2.png"], (32, 32))
    draw(tmp_path / "mixed", ["1.png"], (48, 40))
    write_json(tmp_path / "drawbench.json", ["a red cat"])
    argv = [recipe_file, "--scores", "clip", "--prompts", f"{tmp_path}/drawbench.json", "--pictures"]
    together = tree(capsys, *argv, f"{tmp_path}/mixed")["scores"]["clip"]
    alone = []
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / f"of {name}").mkdir()
        (tmp_path / f"of {name}" / name).write_bytes((tmp_path / "mixed" / name).read_bytes())
        alone.append(tree(capsys, *argv, f"{tmp_path}/of {name}")["scores"]["clip"])
    assert together == pytest.approx(sum(alone) / 3, abs=1e-4)


def test_what_does_not_fit_is_said_in_one_line(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "drawn", ["0.png", "1.png", "2.png"])
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    pictures = [recipe_file, "--scores", "clip", "--pictures", f"{tmp_path}/drawn"]
    assert "says nothing of prompts" in error(capsys, *pictures)
    assert "holds 3 pictures" in error(capsys, *pictures, "--prompts", f"{tmp_path}/two.txt")
    assert error(capsys, recipe_file, "--scores", "fid", "--pictures", "x").startswith(
        "--scores is 'fid': name one"
    )
    assert "use `sample`" in error(capsys, recipe_file, "--prompts", f"{tmp_path}/two.txt")
    (tmp_path / "drawn" / "1.png").write_bytes(b"no picture")
    (tmp_path / "one.txt").write_text("one\n")
    assert "1.png is not a readable image" in error(capsys, *pictures, "--prompts", f"{tmp_path}/one.txt")
