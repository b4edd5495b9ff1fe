"""The same 200 pictures from every kind of input: 197 rows, and the three broken ones by name."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.sources.picture import center_crop
from common.errors import DataError
from common.image_shards import read_manifest
from deploy.prepare.listing import detect_kind
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from tests.deploy.prepare.conftest import BROKEN, CLASSES, IMAGE_SIZE, Picture, all_rows, skipped

Make = Callable[..., PrepareOptions]

NAMES = {
    "folder": lambda each: each.file,
    "tars": lambda each: f"{each.number // 80 * 80:05d}.tar/{each.number:03d}.png",
    "parquet": lambda each: f"data/train-0000{each.number // 100}-of-00002.parquet[{each.number % 100}]",
    "saved": lambda each: f"train/data-0000{each.number // 100}-of-00002.arrow[{each.number % 100}]",
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_readable_picture_becomes_a_row_and_the_others_are_named(
    kind: str, pictures: list[Picture], options: Make, request: pytest.FixtureRequest
) -> None:
    asked = options(request.getfixturevalue(f"as_{kind}"))
    manifest = prepare(asked)
    assert (manifest.kind, manifest.num_rows, manifest.num_skipped, manifest.input_items) == (kind, 197, 3, 200)
    assert list(manifest.shard_rows.values()) == [49, 50, 49, 49]
    assert manifest == read_manifest(asked.output)

    whole = [each for each in pictures if each.number not in BROKEN]
    table = all_rows(asked.output)
    assert table["image_id"].to_pylist() == [NAMES[kind](each) for each in whole]
    for stored, picture in zip(table["image"].to_pylist(), whole, strict=True):
        with Image.open(io.BytesIO(stored)) as image:
            assert image.format == "PNG"
            crop = center_crop(Image.fromarray(picture.pixels), IMAGE_SIZE)
            np.testing.assert_array_equal(np.asarray(image), crop)
    column = "caption" if kind == "tars" else "label"
    assert manifest.conditioning == column
    assert table[column].to_pylist() == [getattr(each, column) for each in whole]

    assert [line["name"] for line in skipped(asked.output)] == [NAMES[kind](pictures[number]) for number in BROKEN]
    assert all("truncated" in line["reason"] or "PNG" in line["reason"] for line in skipped(asked.output))


def test_class_names_and_the_largest_id_are_kept(as_folder: Path, as_parquet: Path, options: Make) -> None:
    for path in (as_folder, as_parquet):
        manifest = prepare(options(path, output=options(path).output / path.name))
        assert manifest.classes == CLASSES
        assert manifest.max_label == 3


def test_small_unlabelled_and_uncaptioned_pictures_are_skipped_with_the_reason(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    root = tmp_path / "pictures"
    (root / "ant").mkdir(parents=True)
    (root / "loose.png").write_bytes(pictures[0].content)
    (root / "ant" / "small.png").write_bytes(pictures[0].content)
    Image.new("RGB", (40, 30)).save(root / "ant" / "large.jpg")
    (root / "ant" / "text.png").write_text("no picture")
    asked = options(root, min_side=21)
    assert prepare(asked).num_rows == 1
    assert skipped(asked.output) == [
        {"name": "loose.png", "reason": "it has no class"},
        {"name": "ant/small.png", "reason": "its short side is 20 px, less than 21"},
        {"name": "ant/text.png", "reason": "it is of no known picture format"},
    ]


def test_an_input_without_one_usable_picture_is_refused_with_the_first_reason(
    options: Make, tmp_path: Path
) -> None:
    (tmp_path / "in" / "ant").mkdir(parents=True)
    (tmp_path / "in" / "ant" / "1.png").write_bytes(b"")
    asked = options(tmp_path / "in")
    with pytest.raises(DataError, match=r"none of 1 items .* the first, ant/1.png: it is of no known"):
        prepare(asked)
    with pytest.raises(DataError, match=r"has no manifest.json: make it with"):
        read_manifest(asked.output)


def test_an_input_without_pictures_names_what_was_looked_for(options: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"holds no pictures \(looked for as folder; --kind"):
        prepare(options(tmp_path / "in"))


def test_the_kind_is_seen_from_what_is_there(
    as_tars: Path, as_saved: Path, as_parquet: Path, tmp_path: Path
) -> None:
    assert detect_kind(as_saved) == "saved"
    assert detect_kind(as_saved / "train") == "saved"
    assert detect_kind(as_parquet) == "parquet"
    assert detect_kind(next(as_tars.glob("*.tar"))) == "tars"
    (tmp_path / "00000.parquet").touch()  # links and captions, beside the tars that were downloaded from them
    assert detect_kind(tmp_path) == "parquet"
    (tmp_path / "00000.tar").touch()
    assert detect_kind(tmp_path) == "tars"
    with pytest.raises(DataError, match="there is nothing at"):
        detect_kind(tmp_path / "nowhere")
    (tmp_path / "x.zip").touch()
    with pytest.raises(DataError, match=r"x.zip is compressed: unpack it first"):
        detect_kind(tmp_path / "x.zip")
