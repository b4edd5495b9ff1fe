"""What a picture is said to show: its caption, or the name of its class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.image_batch import read_readable
from actors.sources.build import build_source
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe


def test_a_class_is_called_by_its_folder(tiny_recipe: Recipe, tmp_path: Path) -> None:
    for name in ("goldfish", "tench"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / name / "0.png")
    recipe = with_changes(tiny_recipe, {"source": {"kind": "image_folder", "path": str(tmp_path)}})
    assert read_readable(build_source(recipe, "train"), [0, 1]).texts == ("goldfish", "tench")


def test_a_digit_is_called_by_its_number(tiny_recipe: Recipe) -> None:
    batch = read_readable(build_source(tiny_recipe, "train"), [0, 1, 2])
    assert batch.texts == tuple(str(label) for label in batch.condition["label"])


@pytest.mark.parametrize(("name", "texts"), [("emoji", {"face-smiling"}), ("emoji_t2i", {"grinning face"})])
def test_an_emoji_is_called_by_its_class_or_by_its_own_name(name: str, texts: set[str]) -> None:
    source = build_source(load_recipe(name), "train")
    assert source.read(0).text in texts


def test_captioned_shards_keep_their_captions() -> None:
    source = build_source(load_recipe("llamagen_xl_t2i_tiny"), "train")
    assert all(source.read(index).text.startswith("a ") for index in range(4))
