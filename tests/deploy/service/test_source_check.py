"""What `check` says of the images that a run would read."""

from pathlib import Path

from PIL import Image

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from deploy.service.source_check import check_source


def test_a_folder_is_told_by_classes_sizes_and_what_will_be_skipped(recipe: Recipe, pictures: Path) -> None:
    whole = with_changes(recipe, {"source.held_out_fraction": 0})
    (pictures / "a" / "0.png").write_bytes(b"")
    (pictures / "b" / "1.png").write_bytes(b"")
    (pictures / "__MACOSX").mkdir()
    (pictures / "empty").mkdir()
    Image.new("RGB", (640, 480)).save(pictures / "c" / "large.png")
    Image.new("RGB", (40, 40)).save(pictures / "loose.png")
    assert check_source(whole) == (
        "13 images, 0.62 epochs; 3 classes (a, b, c); 32 x 32 to 640 x 480 px; "
        "passed over: __MACOSX (hidden, or left behind by a computer); passed over: empty (no pictures); "
        "without a class, beside the class folders: loose.png; "
        "will be skipped, of 13 tried: 2 x it is of no known picture format"
    )


def test_shards_are_told_by_what_prepare_left_out(recipe: Recipe, pictures: Path, tmp_path: Path) -> None:
    (pictures / "a" / "0.png").write_bytes(b"")
    prepare(PrepareOptions(pictures, tmp_path / "shards", image_size=32))
    changed = with_changes(recipe, {"source": {"kind": "parquet", "path": str(tmp_path / "shards")}})
    assert check_source(changed) == (
        "11 images, 0.73 epochs; 3 classes (a, b, c); 32 x 32 px; "
        "1 skipped by `prepare`: 1 x it is of no known picture format"
    )
    (tmp_path / "shards" / "skipped.jsonl").unlink()
    assert check_source(changed).endswith("1 skipped by `prepare`: its list is gone")


def test_the_digits_of_the_demo_are_told_by_their_number(tiny_recipe: Recipe) -> None:
    assert check_source(tiny_recipe) == "4,000 images, 0.002 epochs"
