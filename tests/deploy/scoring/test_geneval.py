"""`evaluate --geneval`: the exact table of a made folder, and the whole way on a tiny random detector."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.evaluation.geneval.rules import TASKS, Detection
from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from deploy.__main__ import main
from deploy.scoring.geneval import GenEvalResult, find_geneval, judged
from tests.clips import reward_models, save_detector

CAT, DOG = {"class": "cat", "count": 1}, {"class": "dog", "count": 1}
PROMPTS = [
    {"tag": "single_object", "include": [CAT], "prompt": "a photo of a cat"},
    {"tag": "two_object", "include": [CAT, DOG], "prompt": "a photo of a cat and a dog"},
    {
        "tag": "counting",
        "include": [CAT | {"count": 2}],
        "exclude": [CAT | {"count": 3}],
        "prompt": "a photo of two cats",
    },
    {"tag": "colors", "include": [CAT | {"color": "red"}], "prompt": "a photo of a red cat"},
    {
        "tag": "position",
        "include": [DOG, CAT | {"position": ["left of", 0]}],
        "prompt": "a photo of a cat left of a dog",
    },
    {
        "tag": "color_attr",
        "include": [CAT | {"color": "red"}, DOG | {"color": "blue"}],
        "prompt": "a photo of a red cat and a blue dog",
    },
]


def make(folder: Path, per_prompt: int) -> Path:
    """The brightness of a picture is its place among those of its prompt, times 10."""
    for place, wanted in enumerate(PROMPTS):
        samples = folder / f"{place:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(wanted) + "\n")
        (samples.parent / "grid.png").write_bytes(b"an overview")
        for number in range(per_prompt):
            Image.new("RGB", (40, 40), (10 * number,) * 3).save(samples / f"{number:05d}.png")
    return folder


def seen(name: str, left: float, score: float = 0.95) -> Detection:
    return Detection(name, score, (left, 0, left + 8, 8), np.ones((40, 40), bool))


def detect(image: Image.Image) -> list[Detection]:
    """0: a cat left of a dog. 1: the other way round. 2: two cats that are hardly seen. 3: two cats."""
    brightness = image.getpixel((0, 0))[0] // 10
    return [
        [seen("cat", 0), seen("dog", 30)],
        [seen("dog", 0), seen("cat", 30)],
        [seen("cat", 0, 0.5), seen("cat", 30, 0.4)],
        [seen("cat", 0), seen("cat", 30)],
    ][brightness]


def colours_in(image: Image.Image, name: str, objects: Sequence[Detection]) -> list[str]:
    """Cats on the left are red, all else is blue."""
    return ["red" if name == "cat" and each.box[0] < 20 else "blue" for each in objects]


def test_a_made_folder_has_exactly_this_table(tmp_path: Path) -> None:
    pictures = find_geneval(make(tmp_path / "drawn", per_prompt=4))
    result = GenEvalResult(pictures, [judged(each, detect, colours_in) for each in pictures], "made", "none")
    assert list(result.lines()) == [
        "GenEval                score  pictures",
        "single_object         1.0000         4",
        "two_object            0.5000         4",
        "counting              0.2500         4",
        "colors                0.7500         4",
        "position              0.2500         4",
        "color_attr            0.2500         4",
        "overall               0.5000        24  mean of the tasks",
        "by made and none: compare with scores of this detector alone",
    ]
    tree = result.as_tree()
    assert tree["overall"] == 0.5
    assert tree["wrong"][str(tmp_path / "drawn/00004/samples/00001.png")] == ["cat is right of, not left of it"]
    assert len(tree["wrong"]) == 12


def test_tasks_without_pictures_are_said(tmp_path: Path) -> None:
    pictures = find_geneval(make(tmp_path / "drawn", per_prompt=1))[:1]
    result = GenEvalResult(pictures, [judged(each, detect, colours_in) for each in pictures], "made", "none")
    *_, last = result.lines()
    assert last.startswith(f"without {', '.join(TASKS[1:])}: the published score")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tag": "colour"}, "tag 'colour', which is none of"),
        ({"include": [{"class": "cat"}]}, "KeyError"),
        ({"include": [CAT | {"position": ["above", 0]}]}, "is not to an earlier object"),
    ],
)
def test_metadata_that_cannot_be_judged_by_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "drawn", per_prompt=1)
    write_json(folder / "00000" / "metadata.jsonl", PROMPTS[0] | changes)
    with pytest.raises(DataError, match=f"is no line of GenEval's evaluation_metadata.jsonl .*{words}"):
        find_geneval(folder)


def test_the_command_judges_a_folder_by_a_tiny_detector(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = reward_models(tmp_path).model_dump(mode="json")
    models["detector"] = str(save_detector(tmp_path / "tiny"))
    write_json(tmp_path / "r.json", with_changes(recipe, {"reward_models": models}).model_dump(mode="json"))
    make(tmp_path / "drawn", per_prompt=1)
    argv = ["evaluate", str(tmp_path / "r.json"), "--geneval", str(tmp_path / "drawn"), "--json"]
    assert main([*argv, "--out", str(tmp_path / "scores.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    assert list(found["tasks"]) == list(TASKS)
    assert (found["detector"], found["clip"]) == ("tiny", "ViT-3x128/8 at 32 px, quick_gelu")
    assert main([*argv[:3], str(tmp_path), "--json"]) == 2
    assert "is not in GenEval's layout" in capsys.readouterr().err
