"""Parquet files and saved data sets: which columns and rows are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import DataError
from deploy.prepare.columns import Columns, choose_columns
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from deploy.prepare.tables import TablePart
from tests.deploy.prepare.conftest import Picture, all_rows, hub_table, skipped

Make = Callable[..., PrepareOptions]
BYTES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("name", ["data/train-00000-of-00002.parquet", "train/data-00000-of-00002.arrow"])
def test_any_range_of_rows_can_be_read(name: str, as_parquet: Path, as_saved: Path) -> None:
    part = TablePart(
        as_parquet if name.endswith("parquet") else as_saved, name, Columns("image", "label", "label")
    )
    assert part.count() == 100
    for start, stop in ((0, 1), (29, 31), (30, 60), (95, 100), (0, 100)):
        items = list(part.read(start, stop))
        assert [item.name for item in items] == [f"{name}[{row}]" for row in range(start, stop)]
        assert [item.label for item in items] == [row // 50 for row in range(start, stop)]


def test_another_split_is_read_where_asked_for(as_parquet: Path, as_saved: Path, options: Make) -> None:
    assert prepare(options(as_parquet, split="validation")).num_rows == 5
    with pytest.raises(DataError, match=r"has no .parquet files of the split test"):
        prepare(options(as_parquet, split="test"))
    with pytest.raises(DataError, match=r"has no split test: name one of train with --split"):
        prepare(options(as_saved, split="test"))


def test_a_picture_may_lie_beside_the_table(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(pictures[1].content)
    images = [{"bytes": None, "path": "1.png"}, {"bytes": None, "path": "2.png"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": pa.array(images, BYTES), "label": [0, 0, 0]}), tmp_path / "x.parquet")
    asked = options(tmp_path / "x.parquet")
    assert prepare(asked).num_rows == 1
    assert [line["reason"] for line in skipped(asked.output)] == [
        "2.png cannot be read: No such file or directory",
        "it has no picture",
    ]


def test_plain_bytes_and_columns_of_any_name(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    table = pa.table({"photo": [each.content for each in pictures[:3]], "said": ["one", None, "three"]})
    pq.write_table(table, tmp_path / "x.parquet")
    asked = options(tmp_path / "x.parquet", image_column="photo", caption_column="said")
    prepare(asked)
    assert all_rows(asked.output)["caption"].to_pylist() == ["one", "three"]
    assert skipped(asked.output) == [{"name": "x.parquet[1]", "reason": "it has no caption"}]


def test_columns_that_do_not_say_what_to_condition_on_are_refused(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    schema = hub_table(pictures[:3], ("label", "caption")).schema
    with pytest.raises(
        DataError, match=r"caption \(string\): name the one to condition on with --label-column or"
    ):
        choose_columns(schema, options(path), path)
    assert choose_columns(schema, options(path, label_column="label"), path).conditioning == "label"
    assert choose_columns(schema, options(path, text_encoder="t5"), path).condition == "caption"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_column": "label"}, "column label of .* is of type int64: binary, or struct"),
        ({"label_column": "image"}, "column image of .* struct.*: whole numbers is needed"),
        ({"label_column": "nothing"}, "has no column nothing, but image, label"),
        ({"caption_column": "label"}, "column label of .* is of type int64: string is needed"),
        ({"text_encoder": "t5"}, "name the one with the captions with --caption-column"),
    ],
)
def test_columns_of_the_wrong_type_are_refused(
    changes: dict[str, str], said: str, pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match=said):
        choose_columns(hub_table(pictures[:3], ("label",)).schema, options(path, **changes), path)


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (("image", "label", "cls"), {}, r"name the one with the class ids \(label or cls\) with --label-column"),
        (("image", "img", "label"), {}, r"name the one with the pictures \(image or img\) with --image-column"),
        (("image", "label", "label"), {}, "has 2 columns of the name label: rename all but the one that is meant"),
        (("image", "label", "label"), {"label_column": "label"}, "has 2 columns of the name label"),
        (("image", "image", "label"), {}, "has 2 columns of the name image"),
    ],
)
def test_two_columns_that_could_both_be_meant_are_refused(
    names: tuple[str, ...], changes: dict[str, Any], said: str, options: Make, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    fields = [pa.field(name, pa.binary() if name in ("image", "img") else pa.int64()) for name in names]
    pq.write_table(pa.schema(fields).empty_table(), path)
    with pytest.raises(DataError, match=said):
        prepare(options(path, **changes))


def test_a_table_that_lacks_the_columns_of_the_first_is_refused(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    pq.write_table(hub_table(pictures[:3], ("label",)), tmp_path / "a.parquet")
    pq.write_table(hub_table(pictures[:3], ("caption",)), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet has no column label, but image, caption"):
        prepare(options(tmp_path))


def test_a_table_that_cannot_be_read_is_refused_by_name(as_parquet: Path, options: Make, tmp_path: Path) -> None:
    content = (as_parquet / "data" / "train-00000-of-00002.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[:-50])
    with pytest.raises(DataError, match=r"x.parquet cannot be read .*: fetch it again"):
        prepare(options(tmp_path / "x.parquet"))


def test_a_saved_data_set_with_an_index_over_its_rows_is_refused(options: Make, tmp_path: Path) -> None:
    state = {"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="after flatten_indices"):
        prepare(options(tmp_path))
