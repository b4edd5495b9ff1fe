"""Where images come from: the digits, and folders of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from actors.image_batch import ImageBatch, batch_of, read_readable, start_reading, to_uint8
from actors.sources.build import build_source, require_readable
from actors.sources.image_folder import ImageFolder
from actors.sources.mnist import Mnist
from actors.sources.picture import center_crop
from actors.sources.split import Split, chosen_indices, split_indices
from common.atomic import write_json
from common.config.data import ImageFolderSource, MnistSource, SubsetKeys
from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.errors import BrokenImageError, DataError, RecipeError
from common.models.families import class_format
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.pixels import to_tensor

RED, BLUE = (255, 0, 0), (0, 0, 255)
CLASSES = class_format(LlamaGenPolicySpec(size="B", num_classes=10, checkpoint=""))


def picture(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def folder(path: Path, split: Split = "train", held_out_fraction: float = 0.0) -> ImageFolder:
    spec = ImageFolderSource(kind="image_folder", path=str(path), held_out_fraction=held_out_fraction)
    return ImageFolder(spec, CLASSES, 8, split)


def digits(split: Split) -> Mnist:
    return Mnist(MnistSource(kind="mnist"), CLASSES, 32, split)


def test_a_split_is_disjoint_complete_and_a_function_of_its_seed() -> None:
    train, held_out = (split_indices(10, 0.3, 0, split) for split in ("train", "held_out"))
    assert len(held_out) == 3
    assert sorted([*train, *held_out]) == list(range(10))
    assert split_indices(10, 0.3, 0, "held_out").tolist() == held_out.tolist()
    assert split_indices(1000, 0.3, 1, "train").tolist() != split_indices(1000, 0.3, 0, "train").tolist()


def test_the_digits_of_both_splits_are_disjoint_and_complete() -> None:
    train, held_out = digits("train"), digits("held_out")
    assert (len(train), len(held_out)) == (4000, 1000)
    names = [source.read(index).image_id for source in (train, held_out) for index in range(len(source))]
    assert len(set(names)) == 5000


def test_a_digit_is_32_pixels_wide_grey_and_labelled() -> None:
    image = digits("train").read(0)
    assert image.image_id.startswith("mnist/")
    assert image.pixels.shape == (32, 32, 3)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.max() > 200
    assert (image.pixels[:2] == 0).all()  # the margin around 28 pixels
    assert (image.pixels[..., 0] == image.pixels[..., 2]).all()
    label = image.condition["label"]
    assert (label.dtype, label.shape) == (np.int64, ())
    assert 0 <= int(label) < 10


def test_the_digits_come_in_one_size_only() -> None:
    with pytest.raises(DataError, match="set image_size=32"):
        Mnist(MnistSource(kind="mnist"), CLASSES, 64, "train")


def test_the_recipe_names_the_source(tiny_recipe: Recipe) -> None:
    assert len(build_source(tiny_recipe, "held_out")) == 1000


def test_labels_follow_the_sorted_names_of_the_class_folders(tmp_path: Path) -> None:
    picture(tmp_path / "zebra" / "1.png", BLUE)
    picture(tmp_path / "ant" / "deep" / "2.PNG")
    picture(tmp_path / "ant" / "1.jpg")
    (tmp_path / "ant" / "notes.txt").write_text("not a picture")
    (tmp_path / "mouse").mkdir()  # empty: no class
    images = [folder(tmp_path).read(index) for index in range(len(folder(tmp_path)))]
    assert [(image.image_id, int(image.condition["label"])) for image in images] == [
        ("ant/1.jpg", 0),
        ("ant/deep/2.PNG", 0),
        ("zebra/1.png", 1),
    ]
    assert images[2].pixels.shape == (8, 8, 3)
    assert (images[2].pixels == BLUE).all()


def test_splits_of_a_folder_share_no_picture(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "a" / f"{number}.png")
    train, held_out = (folder(tmp_path, split, held_out_fraction=0.2) for split in ("train", "held_out"))
    names = [source.read(index).image_id for source in (train, held_out) for index in range(len(source))]
    assert (len(train), len(held_out), len(set(names))) == (8, 2, 10)


def names_of(path: Path, **keys: Any) -> list[str]:
    source = ImageFolder(ImageFolderSource(kind="image_folder", path=str(path), **keys), CLASSES, 8, "train")
    return [source.read(index).image_id for index in range(len(source))]


def test_a_fraction_is_a_function_of_its_seed_and_grows_by_adding(tmp_path: Path) -> None:
    for number in range(40):
        picture(tmp_path / "a" / f"{number:02d}.png", size=(8, 8))
    tenth, half = names_of(tmp_path, fraction=0.1), names_of(tmp_path, fraction=0.5)
    assert (len(tenth), len(half)) == (4, 20)
    assert tenth == names_of(tmp_path, fraction=0.1)
    assert tenth == sorted(set(tenth) & set(half))
    assert tenth != names_of(tmp_path, fraction=0.1, seed=1)
    assert len(names_of(tmp_path, fraction=0.001)) == 1
    assert len(names_of(tmp_path, fraction=1.0)) == 40


def test_a_fraction_leaves_the_held_out_images_as_they_are() -> None:
    whole = SubsetKeys(held_out_fraction=0.2, split_seed=5)
    tenth = whole.model_copy(update={"fraction": 0.1})
    held_out = chosen_indices(1000, whole, "held_out").tolist()
    train = chosen_indices(1000, tenth, "train").tolist()
    assert chosen_indices(1000, tenth, "held_out").tolist() == held_out
    assert len(train) == 80
    assert not set(train) & set(held_out)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "parquet"}, "source.path is missing"),
        ({"kind": "parquet", "path": "x", "fraction": 0}, "source.fraction is 0: "),
        ({"kind": "image_folder", "path": "x", "fraction": 1.5}, "source.fraction is 1.5: "),
        ({"kind": "parquet", "path": "x", "fractoin": 1}, "did you mean source.fraction"),
        ({"kind": "mnist", "fraction": 0.5}, "source.fraction is not a recipe key"),
    ],
)
def test_mistakes_in_a_source_are_one_sentence(
    source: dict, said: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    write_json(tmp_path / "recipe.json", tiny_recipe.model_dump(mode="json") | {"source": source})
    with pytest.raises(RecipeError, match=said):
        load_recipe(tmp_path / "recipe.json")


def test_a_text_conditional_policy_needs_captions(tiny_recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match=r"source.kind mnist has no captions: set source.kind=parquet"):
        with_changes(tiny_recipe, {"policy.conditioning": "text"})


def test_room_for_caption_features_is_counted_in_a_group(tiny_recipe: Recipe) -> None:
    text = {"policy.conditioning": "text", "source": {"kind": "parquet", "path": "x"}, "buffer.max_bytes": 1 << 30}
    more = with_changes(tiny_recipe, text).group_bytes - tiny_recipe.group_bytes
    assert more == 120 * (2 * 2048 + 1) - 8


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_a_file_that_is_no_picture_is_named_with_the_reason(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"^a/broken.png is not a readable image: ."):
        folder(tmp_path).read(0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_a_picture_that_is_cut_short_is_broken(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BrokenImageError, match=f"a/cut{suffix}"):
        folder(tmp_path).read(0)


def test_a_picture_with_a_palette_or_alpha_becomes_rgb(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("P", (8, 8)).save(tmp_path / "a" / "palette.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "a" / "transparent.png")
    source = folder(tmp_path)
    assert [source.read(index).pixels.shape for index in range(2)] == [(8, 8, 3), (8, 8, 3)]


def test_a_folder_without_pictures_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"has no images for the train split: put pictures \(.bmp, .jpeg"):
        folder(tmp_path)


def test_an_empty_held_out_split_names_the_key_to_change(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match=r"set source.held_out_fraction above 0"):
        folder(tmp_path, "held_out")


@pytest.mark.parametrize("name", ["missing", "file.png"])
def test_a_path_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    picture(tmp_path / "file.png")
    with pytest.raises(DataError, match=rf"{name}, which is no folder"):
        folder(tmp_path / name)


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (40, 20), (5, 3), (100, 8), (17, 16), (1, 7)])
def test_a_crop_has_the_asked_size_whatever_the_picture(size: tuple[int, int]) -> None:
    assert center_crop(Image.new("RGB", size), 8).shape == (8, 8, 3)


def test_the_crop_keeps_the_middle_of_the_long_side() -> None:
    image = Image.new("RGB", (48, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))  # red, blue, red
    assert (center_crop(image, 16) == BLUE).all()


def test_a_large_picture_is_halved_by_averaging_before_it_is_resized() -> None:
    checks = np.indices((32, 32)).sum(0) % 2 * 255  # single pixels of black and white
    image = Image.fromarray(checks.astype(np.uint8)).convert("RGB")
    assert np.abs(center_crop(image, 8).astype(int) - 128).max() <= 1


def test_a_source_with_one_readable_picture_among_the_tried_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the images tried can be read; the last: a/1.png"):
        require_readable(folder(tmp_path))
    picture(tmp_path / "a" / "2.png")
    require_readable(folder(tmp_path))


def test_a_batch_keeps_the_readable_images_and_says_which_they_are(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    picture(tmp_path / "b" / "3.png", BLUE)
    batch = batch_of(start_reading(folder(tmp_path), [2, 1, 0]))
    assert isinstance(batch, ImageBatch)
    assert batch.positions == (0, 2)
    assert batch.image_ids == ("b/3.png", "a/1.png")
    assert batch.condition["label"].tolist() == [1, 0]
    assert batch.pixels_BHWC.shape == (2, 8, 8, 3)
    assert batch.broken[1].image_id == "a/2.png"
    with pytest.raises(DataError, match="none of 1 images can be read"):
        read_readable(folder(tmp_path), [1])


def test_pixels_go_from_bytes_to_plus_minus_one_and_back() -> None:
    pixels_BHWC = np.arange(0, 256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(pixels_BHWC, torch.device("cpu"))
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    assert tensor.shape == (1, 3, 16, 16)
    assert np.abs(to_uint8(tensor).astype(int) - pixels_BHWC).max() <= 1
    assert to_uint8(3 * tensor).min() == 0
    assert to_uint8(3 * tensor).max() == 255


def test_more_class_folders_than_the_generator_knows_are_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    for label in range(3):
        picture(tmp_path / str(label) / "a.png")
    changes = {"source": {"kind": "image_folder", "path": str(tmp_path)}, "policy.num_classes": 2}
    with pytest.raises(DataError, match=r"3 class folders and policy.num_classes is 2"):
        build_source(with_changes(tiny_recipe, changes), "train")
