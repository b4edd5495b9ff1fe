"""The emoji: the shipped pictures, and what is wrong with others."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.sources.build import build_source
from actors.sources.emoji import COLUMNS, Emoji, Picture
from actors.sources.split import Split
from common.config.data import EmojiSource
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.families import caption_format, class_format
from common.models.llamagen.spec import LlamaGenPolicySpec
from deploy.recipes.emoji.make import concept_of

CLASSES = class_format(LlamaGenPolicySpec(size="B", num_classes=99, checkpoint=""))


def emoji(split: Split = "train", size: int = 32, **keys: Any) -> Emoji:
    return Emoji(EmojiSource(kind="emoji", **keys), size, split, classes=CLASSES)


def labels(source: Emoji) -> list[int]:
    return [int(source.read(index).condition["label"]) for index in range(len(source))]


def concepts(source: Emoji) -> set[str]:
    numbers = [int(source.read(index).image_id[6:10]) for index in range(len(source))]
    return {source.pictures[number].concept for number in numbers}


def test_every_picture_is_in_one_split_and_no_concept_is_in_both() -> None:
    train, held_out = emoji(), emoji("held_out")
    assert len(train) + len(held_out) == len(train.pictures) == 3786
    assert not concepts(train) & concepts(held_out)
    share = len(concepts(held_out)) / len({picture.concept for picture in train.pictures})
    assert 0.08 < share < 0.12
    assert concepts(emoji("held_out", split_seed=1)) != concepts(held_out)


def test_each_class_is_trained_on() -> None:
    train = emoji(held_out_fraction=0.2)
    assert sorted(set(labels(train))) == list(range(99))
    assert len(set(labels(emoji(classes="category")))) == 10
    assert train.class_names[:2] == ("face-smiling", "face-affection")


def test_a_picture_is_colour_on_white_with_its_name_and_class() -> None:
    train = emoji()
    at = next(index for index in range(len(train)) if train.read(index).image_id.endswith("red apple"))
    apple = train.read(at)
    assert (apple.pixels.shape, apple.pixels.dtype) == ((32, 32, 3), np.uint8)
    assert (apple.pixels[0, 0] == 255).all()
    red, green, _ = apple.pixels[16, 12]
    assert red > 150 > green
    assert train.class_names[int(apple.condition["label"])] == "food-fruit"


def test_skin_tones_are_pictures_of_their_own_and_of_one_concept() -> None:
    tones = [picture for picture in emoji().pictures if picture.name == "waving hand sign"]
    assert [picture.variant for picture in tones] == ["", "1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"]
    assert len({picture.concept for picture in tones}) == 1


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("woman health worker", "health worker"),
        ("man: blond hair", "blond hair"),
        ("person kneeling facing right", "kneeling"),
        ("family: man, woman, girl", "family"),
        ("clock face three-thirty", "clock face"),
        ("woman", "person"),
        ("mantelpiece clock", "mantelpiece clock"),
    ],
)
def test_a_concept_is_a_name_without_who_does_it(name: str, concept: str) -> None:
    assert concept_of(name) == concept


def test_mirror_images_are_trained_on_where_they_mean_the_same() -> None:
    plain, mirrored = emoji(), emoji(mirrored=True)
    twins = [mirrored.read(index) for index in range(len(plain), len(mirrored))]
    assert twins
    of = Counter(mirrored.pictures[int(twin.image_id[6:10])].category for twin in twins)
    assert not {"Symbols", "Flags", "Objects", "Component"} & set(of)
    originals = {image.image_id: image for image in (plain.read(index) for index in range(len(plain)))}
    for twin in twins[::100]:
        assert (twin.pixels[:, ::-1] == originals[twin.image_id.removesuffix(" mirrored")].pixels).all()
    assert len(emoji("held_out", mirrored=True)) == len(emoji("held_out"))


def test_the_recipe_names_the_source_and_the_policy_has_its_classes(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"source": {"kind": "emoji"}, "policy.num_classes": 99})
    assert len(build_source(recipe, "held_out")) == len(emoji("held_out"))
    with pytest.raises(DataError, match=r"source.path has 99 classes \(source.classes=subcategory\) and policy"):
        build_source(with_changes(recipe, {"policy.num_classes": 10}), "train")


def test_names_are_captions_for_a_policy_of_text(tiny_recipe: Recipe) -> None:
    policy = {"policy.conditioning": "text", "policy.caption_dim": 64, "policy.caption_length": 12}
    recipe = with_changes(tiny_recipe, {"source": {"kind": "emoji"}} | policy)
    source = build_source(recipe, "train")
    assert isinstance(source, Emoji)
    rows = {image.image_id: image.condition for image in map(source.read, range(len(source)))}
    tones = [row for name, row in rows.items() if "waving hand sign" in name]
    assert [int(row["caption_mask"].sum()) for row in tones] == [3, 5, 6, 5, 6, 5]  # with "medium dark skin"
    plain, light = (row["caption_features"][row["caption_mask"] == 1] for row in tones[:2])
    assert (light[:3] == plain).all()
    encoded = caption_format(recipe.policy).encode(["waving hand sign"], "words:64")
    assert (encoded[0] == plain).all()
    with pytest.raises(DataError, match=r"words:64 gives features 64 wide and policy.caption_dim is 32"):
        build_source(with_changes(recipe, {"policy.caption_dim": 32}), "train")


def made(folder: Path, names: int = 4, size: int = 2) -> dict[str, Any]:
    """Four pictures of two pixels a side, and an index that may name more."""
    Image.new("RGB", (2 * size, 2 * size), "white").save(folder / "atlas.webp", lossless=True)
    rows = [list(Picture(f"n{number}", "c", "s", f"n{number}", "")) for number in range(names)]
    index = {"size": size, "columns": COLUMNS, "pictures": rows}
    (folder / "index.json").write_text(json.dumps(index))
    return index


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    made(tmp_path)
    source = emoji(path=str(tmp_path), size=2, held_out_fraction=0.25)
    assert (len(source), source.class_names) == (3, ("s",))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "index.json cannot be read"),
        (lambda folder: (folder / "index.json").write_text("["), "index.json is no index of emoji"),
        (lambda folder: (folder / "index.json").write_text("{}"), "index.json is no index of emoji"),
        (lambda folder: (folder / "atlas.webp").unlink(), "atlas.webp: the file cannot be read"),
        (lambda folder: (folder / "atlas.webp").write_text("no"), "atlas.webp: it is of no known picture format"),
        (lambda folder: made(folder, names=5), "has room for 4 pictures of 2 px and index.json names 5"),
    ],
)
def test_what_is_wrong_with_the_files(tmp_path: Path, spoil: Any, message: str) -> None:
    made(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=rf"{message}.*make.py"):
        emoji(path=str(tmp_path), size=2)


def test_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="image_size is 64, but the pictures"):
        emoji(size=64)
