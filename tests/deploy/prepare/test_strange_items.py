"""Text that is not UTF-8, labels that no column holds, damaged rows: an item goes on or is skipped, by name."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from common.errors import DataError
from common.image_shards import read_manifest
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from tests.deploy.prepare.conftest import Picture, all_rows, skipped, write_tar

Make = Callable[..., PrepareOptions]
NOT_UTF_8 = b"caf\xe9"


def latin(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def strings(*values: bytes) -> pa.Array:
    """A column of strings that are what they are."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_a_picture_and_a_class_with_latin_names_go_on(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    folder = latin(tmp_path, b"b\xeate")
    folder.mkdir()
    latin(folder, b"caf\xe9.png").write_bytes(pictures[0].content)
    latin(folder, b"caf\xe8.png").write_bytes(b"")
    asked = options(tmp_path)
    assert prepare(asked).classes == ("b\\xeate",)
    assert all_rows(asked.output)["image_id"].to_pylist() == ["b\\xeate/caf\\xe9.png"]
    assert skipped(asked.output)[0]["name"] == "b\\xeate/caf\\xe8.png"


def test_captions_of_tars_are_repaired(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    image = pictures[0].content
    half = b'{"caption": "a smile \\ud83d in half"}'
    samples = [
        {"a.png": image, "a.txt": NOT_UTF_8},
        {"b.png": image, "b.json": half},
        {"c.png": image, "c.json": b'{"caption": "caf\xe9"}'},
        {"d.png": image, "d.txt": "weiß".encode("utf-16")},
        {"e.png": image, "e.json": b"[" * 100_000},
        {latin(Path("f"), b"\xe9.png").name: image, latin(Path("f"), b"\xe9.txt").name: b"an e"},
    ]
    path = latin(tmp_path, b"\xe9.tar")
    write_tar(path, samples)
    asked = options(path)
    prepare(asked)
    table = all_rows(asked.output)
    assert table["caption"].to_pylist() == ["caf�", "a smile � in half", "caf�", "weiß", "an e"]
    assert table["image_id"].to_pylist()[-1] == "\\xe9.tar/\\xe9.png"
    assert skipped(asked.output) == [{"name": "\\xe9.tar/e", "reason": "its .json cannot be parsed"}]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_columns_of_tables_are_repaired(
    kind: pa.DataType, pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    latin(tmp_path, b"caf\xe9.png").write_bytes(pictures[0].content)
    paths = strings(b"caf\xe9.png", b"\xe9")
    images = pa.StructArray.from_arrays(
        [pa.array([None, pictures[1].content], pa.binary()), paths], ["bytes", "path"]
    )
    said = strings(NOT_UTF_8, b"fine")
    said = said if kind == pa.string() else said.view(pa.binary()).cast(pa.large_binary()).view(kind)
    path = latin(tmp_path, b"\xe9.parquet")
    with path.open("wb") as file:
        pq.write_table(pa.table({"image": images, "text": said}), file)
    asked = options(path)
    assert prepare(asked).num_rows == 2
    assert all_rows(asked.output)["caption"].to_pylist() == ["caf�", "fine"]
    assert all_rows(asked.output)["image_id"].to_pylist()[0] == "\\xe9.parquet[0]"


def test_a_saved_data_set_with_a_latin_name_is_read(as_saved: Path, options: Make, tmp_path: Path) -> None:
    copy = latin(tmp_path, b"\xe9")
    copy.symlink_to(as_saved)
    assert prepare(options(copy)).num_rows == 197


def test_an_output_with_a_latin_name_can_be_written_and_gone_on_with(
    as_folder: Path, options: Make, tmp_path: Path
) -> None:
    asked = options(as_folder, output=latin(tmp_path, b"\xe9"))
    assert prepare(asked).num_rows == 197
    assert prepare(asked) == read_manifest(asked.output)


def test_labels_that_no_column_holds_are_skipped(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    labels = pa.array([1, 2**63, 2**64 - 1], pa.uint64())
    pq.write_table(
        pa.table({"image": [each.content for each in pictures[:3]], "label": labels}), tmp_path / "x.parquet"
    )
    asked = options(tmp_path / "x.parquet")
    assert prepare(asked).max_label == 1
    assert [line["reason"] for line in skipped(asked.output)] == [
        f"its class id is {2**63}, more than 64 bits hold",
        f"its class id is {2**64 - 1}, more than 64 bits hold",
    ]
    ids = {"a": b"3", "b": b"9" * 30, "c": b"9" * 6000, "d": b"3.0", "e": b"nan", "f": b"\xff", "g": b""}
    write_tar(tmp_path / "x.tar", [{f"{key}.png": pictures[0].content, f"{key}.cls": ids[key]} for key in ids])
    asked = options(tmp_path / "x.tar", output=tmp_path / "tar")
    assert (prepare(asked).num_rows, len(skipped(asked.output))) == (1, 6)


def test_a_damaged_row_group_costs_its_own_rows_alone(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [each.content for each in pictures[:6]], "label": list(range(6))})
    pq.write_table(table, path, row_group_size=2, compression="none", use_dictionary=False)
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    asked = options(path)
    assert prepare(asked).num_rows == 4
    assert [line["name"] for line in skipped(asked.output)] == ["x.parquet[2]", "x.parquet[3]"]
    assert all(line["reason"].startswith("its rows cannot be read: ") for line in skipped(asked.output))


def test_links_and_pipes_among_pictures_and_tars(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    (tmp_path / "in" / "ant").mkdir(parents=True)
    (tmp_path / "in" / "ant" / "a.png").write_bytes(pictures[0].content)
    (tmp_path / "in" / "ant" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "in" / "ant" / "pipe.png")
    notes: list[str] = []
    asked = options(tmp_path / "in")
    prepare(asked, say=notes.append)
    assert notes == ["1 class (ant)", "passed over: ant/pipe.png (not a regular file)"]
    assert skipped(asked.output) == [
        {"name": "ant/gone.png", "reason": "the file cannot be read: No such file or directory"}
    ]
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").symlink_to("nowhere.tar")
    with pytest.raises(DataError, match=r"0.tar is a link that points nowhere"):
        prepare(options(tmp_path / "tars", output=tmp_path / "other"))


def test_what_lies_beside_tars_and_tables_is_passed_over(as_tars: Path, options: Make, tmp_path: Path) -> None:
    (tmp_path / "in" / "__MACOSX").mkdir(parents=True)
    (tmp_path / "in" / "old.parquet").mkdir()  # a folder, as Spark names them
    for split in ("train", "val"):
        (tmp_path / "in" / f"{split}-0.tar").write_bytes((as_tars / "00000.tar").read_bytes())
    for name in ("._train-0.tar", "__MACOSX/._train-0.tar", "__MACOSX/train-1.tar"):
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7 resource fork")
    assert prepare(options(tmp_path / "in")).input_items == 80
    (tmp_path / "in" / "x.tar.gz").touch()
    with pytest.raises(DataError, match=r"x.tar.gz is compressed: unpack it first \(gunzip\)"):
        prepare(options(tmp_path / "in" / "x.tar.gz"))


def test_transparent_pictures_lie_on_the_ground_that_is_asked_for(options: Make, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.new("RGBA", (20, 20)).save(tmp_path / "in" / "a" / "clear.png")
    shards = {}
    for ground in ("white", "black"):
        asked = options(tmp_path / "in", output=tmp_path / ground, ground=ground)
        prepare(asked)
        shards[ground] = all_rows(asked.output)["image"].to_pylist()
    assert shards["white"] != shards["black"]
    with pytest.raises(DataError, match=r"made with --ground black, and this call has none"):
        prepare(options(tmp_path / "in", output=tmp_path / "black"))
    with pytest.raises(ValueError, match=r"--ground is sky: name a colour, such as white, or #rrggbb"):
        options(tmp_path / "in", ground="sky")
