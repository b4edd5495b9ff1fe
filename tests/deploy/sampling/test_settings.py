"""Which calls may go on with a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from deploy.runs import claimed_folder
from deploy.sampling.options import SampleOptions
from deploy.sampling.sample import settings_of

OPTIONS = SampleOptions(Path("out"))
DIGESTS = {"weights_sha256": "abc"}


def claim(folder: Path, settings: dict[str, Any]) -> None:
    claimed_folder.claim(
        folder, settings, file="sampling.json", argument="--out", things="pictures", command="sample"
    )


def settings(recipe: Recipe) -> dict[str, Any]:
    return settings_of(recipe, OPTIONS, 10, DIGESTS)


def test_a_call_with_the_same_settings_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim(folder, settings(recipe))
    (folder / "000000.png").touch()
    same = {"actors.count": 7, "learner.lr": 1, "run.name": "other"}
    same |= {"policy.checkpoint": "/copied/to.pt", "policy.obtain_from": "elsewhere"}
    claim(folder, settings(with_changes(recipe, same)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sampling.top_k", 5),
        ("sampling.batch_size", 7),
        ("sampling.guidance_schedule", "power_cosine"),
        ("image_size", 64),
        ("policy.num_classes", 11),
        ("compute.num_threads", 2),
    ],
)
def test_other_settings_are_refused_by_name(key: str, value: Any, recipe: Recipe, tmp_path: Path) -> None:
    claim(tmp_path / "out", settings(recipe))
    with pytest.raises(
        DataError, match=rf"holds pictures made with {key} \S+, and this call has {value}: repeat the call"
    ):
        claim(tmp_path / "out", settings(with_changes(recipe, {key: value})))


def test_other_weights_seeds_and_numbers_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    claim(tmp_path / "out", settings(recipe))
    with pytest.raises(DataError, match="made with weights_sha256 abc, and this call has def"):
        claim(tmp_path / "out", settings_of(recipe, OPTIONS, 10, {"weights_sha256": "def"}))
    with pytest.raises(DataError, match="made with --seed 0, and this call has 3"):
        claim(tmp_path / "out", settings_of(recipe, replace(OPTIONS, seed=3), 10, DIGESTS))
    with pytest.raises(DataError, match="made with number of pictures 10, and this call has 11"):
        claim(tmp_path / "out", settings_of(recipe, OPTIONS, 11, DIGESTS))
    with pytest.raises(DataError, match="made with prompts_sha256 none, and this call has ghi"):
        claim(tmp_path / "out", settings_of(recipe, OPTIONS, 10, DIGESTS | {"prompts_sha256": "ghi"}))
