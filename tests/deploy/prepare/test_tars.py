"""Webdataset tars: what makes a sample, where its caption or class id comes from, and what is wrong with it."""

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DataError
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from deploy.prepare.tars import TarPart
from tests.deploy.prepare.conftest import Picture, all_rows, skipped, write_tar

Make = Callable[..., PrepareOptions]


def part(path: Path, caption_field: str | None = None) -> TarPart:
    return TarPart(path.parent, path.name, "caption", "cls", caption_field)


def test_a_caption_is_the_text_file_or_the_field_of_the_json(pictures: list[Picture], tmp_path: Path) -> None:
    image = pictures[0].content
    stored = {"caption": "from json", "text": ["first", "second"], "number": 3}
    samples = [
        {"a.jpg": image, "a.txt": b"from text", "a.json": json.dumps(stored).encode()},
        {"deep/b.webp": image, "deep/b.json": json.dumps(stored).encode(), "deep/b.seg.png": b"another picture"},
    ]
    write_tar(tmp_path / "x.tar", samples)

    def captions(field: str | None) -> list[str | None]:
        return [item.caption for item in part(tmp_path / "x.tar", field).read(0, 2)]

    assert captions(None) == ["from text", "from json"]
    assert captions("caption") == ["from json", "from json"]
    assert captions("text.1") == ["second", "second"]
    assert captions("number") == captions("text.9") == captions("nothing") == [None, None]
    assert [item.name for item in part(tmp_path / "x.tar").read(0, 2)] == ["x.tar/a.jpg", "x.tar/deep/b.webp"]


def test_incomplete_samples_are_skipped_with_the_reason(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    image = pictures[0].content
    (tmp_path / "in").mkdir()
    samples = [
        {"good.png": image, "good.txt": b"A photo"},
        {"silent.png": image},
        {"blank.png": image, "blank.txt": b" \n"},
        {"link.png": image, "link.txt": b"https://example.org/x.jpg"},
        {"blind.txt": b"no picture"},
        {"odd.png": image, "odd.json": b"{"},
    ]
    write_tar(tmp_path / "in" / "00000.tar", samples)
    asked = options(tmp_path / "in")
    assert prepare(asked).num_rows == 1
    assert all_rows(asked.output)["caption"].to_pylist() == ["A photo"]
    assert [(line["name"].removeprefix("00000.tar/"), line["reason"]) for line in skipped(asked.output)] == [
        ("silent.png", "it has no caption"),
        ("blank.png", "it has no caption"),
        ("link.png", "it has no caption"),
        ("blind", "it has no picture"),
        ("odd", "its .json cannot be parsed"),
    ]


def test_class_ids_come_from_the_cls_member(pictures: list[Picture], options: Make, tmp_path: Path) -> None:
    image = pictures[0].content
    ids = {"a": b"3", "b": b" 11\n", "c": b"tench", "d": b"-1"}
    samples = [{f"{key}.png": image, f"{key}.cls": text, f"{key}.json": b"{}"} for key, text in ids.items()]
    write_tar(tmp_path / "x.tar", samples)
    asked = options(tmp_path / "x.tar")
    manifest = prepare(asked)
    assert all_rows(asked.output)["label"].to_pylist() == [3, 11]
    assert (manifest.conditioning, manifest.max_label) == ("label", 11)
    assert [line["reason"] for line in skipped(asked.output)] == [
        "its .cls is b'tench', not a class id",
        "its class id is -1",
    ]


def test_tars_with_captions_and_class_ids_need_an_option(
    pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    sample = {"a.png": pictures[0].content, "a.txt": b"an ant", "a.cls": b"1"}
    write_tar(tmp_path / "x.tar", [sample])
    with pytest.raises(DataError, match=r"both captions and class ids: .* --caption-field .* --label-column"):
        prepare(options(tmp_path / "x.tar"))
    asked = options(tmp_path / "x.tar", label_column="cls")
    assert prepare(asked).conditioning == "label"


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_tar_that_is_cut_short_is_refused_by_name(
    keep: float, pictures: list[Picture], options: Make, tmp_path: Path
) -> None:
    samples = [{f"{each.number}.png": each.content, f"{each.number}.txt": b"a"} for each in pictures[10:30]]
    write_tar(tmp_path / "x.tar", samples)
    content = (tmp_path / "x.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "x.tar").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"x.tar is cut short or no uncompressed tar"):
        prepare(options(tmp_path / "x.tar"))


def whole_tar(pictures: list[Picture], path: Path) -> bytes:
    write_tar(path, [{f"{each.number}.png": each.content, f"{each.number}.txt": b"a"} for each in pictures[10:20]])
    return path.read_bytes()


def test_a_tar_that_is_cut_anywhere_is_refused_even_between_two_members(
    pictures: list[Picture], tmp_path: Path
) -> None:
    content = whole_tar(pictures, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = tar.getmembers()
        end = tar.offset
    boundary, data = members[4].offset, members[4].offset_data
    for stop in (0, 100, boundary, boundary + 100, boundary + 512, data + 1, end - 512, end, end + 100):
        (tmp_path / f"{stop}.tar").write_bytes(content[:stop])
        with pytest.raises(DataError, match=rf"{stop}.tar is cut short or no uncompressed tar"):
            part(tmp_path / f"{stop}.tar").count()
    for stop in (end + 512, end + 1024, len(content)):  # a mark of its end is enough
        (tmp_path / f"{stop}.tar").write_bytes(content[:stop])
        assert part(tmp_path / f"{stop}.tar").count() == 10


def test_a_tar_with_a_damaged_header_or_with_another_behind_it_is_refused(
    pictures: list[Picture], tmp_path: Path
) -> None:
    content = whole_tar(pictures, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        offset = tar.getmembers()[4].offset
    damaged = content[:offset] + b"x" * 512 + content[offset + 512 :]
    wrong = {
        "damaged": (damaged, f"the header at byte {offset} is damaged"),
        "joined": (content + content, r"joined by `tar -A`, not by `cat`"),
        "gzip": (gzip.compress(content), "cut short or no uncompressed tar"),
        "cut_gzip": (gzip.compress(content)[:5000], "cut short or no uncompressed tar"),
    }
    for name, (stored, said) in wrong.items():
        (tmp_path / f"{name}.tar").write_bytes(stored)
        with pytest.raises(DataError, match=rf"{name}.tar .*{said}"):
            part(tmp_path / f"{name}.tar").count()
