"""Webdataset tars: files of one key are one sample, as KEY.jpg with KEY.txt, KEY.json or KEY.cls.

A caption is KEY.txt, or the field `caption` of KEY.json, or the field that --caption-field names (a dotted
path: `text.0` is the first entry of the list `text`). A class id is KEY.cls, or the member that
--label-column names.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from actors.sources.class_folders import is_left_behind
from actors.sources.picture import SUFFIXES
from common.errors import DataError
from common.image_shards import Conditioning
from common.text import decoded, parsed_json, repaired, shown_name
from deploy.prepare.files import files_of_split, names_and_sizes
from deploy.prepare.items import Found, Item, Skipped, listing_digest
from deploy.prepare.options import PrepareOptions

Span = tuple[int, int]  # offset and size of a member in the tar
LOOKED_AT = 100  # samples that decide whether a tar has captions or class ids


@dataclass(frozen=True)
class TarPart:
    root: Path
    name: str  # relative to the root
    conditioning: Conditioning
    label_member: str
    caption_field: str | None

    def count(self) -> int:
        return len(tar_index(self.root / self.name))

    def read(self, start: int, stop: int) -> Iterator[Item | Skipped]:
        samples = tar_index(self.root / self.name)[start:stop]
        with (self.root / self.name).open("rb") as file:
            for key, spans in samples:
                members = _Members(file, spans)
                try:
                    yield self._item(key, members)
                except (ValueError, OSError) as error:
                    yield Skipped(self._name(key), str(error))

    def _name(self, key: str) -> str:
        return f"{shown_name(self.name)}/{shown_name(key)}"

    def _item(self, key: str, members: "_Members") -> Item:
        extension = next((extension for extension in members.spans if f".{extension}" in SUFFIXES), None)
        name = self._name(key) + (f".{extension}" if extension else "")
        image = members.read(extension) if extension else None
        if self.conditioning == "label":
            return Item(name, image, label=_label(members, self.label_member))
        return Item(name, image, caption=_caption(members, self.caption_field))


class _Members:
    """The files of one sample, by extension."""

    def __init__(self, file: Any, spans: dict[str, Span]):
        self.spans = spans
        self._file = file

    def read(self, extension: str) -> bytes | None:
        if extension not in self.spans:
            return None
        offset, size = self.spans[extension]
        self._file.seek(offset)
        return self._file.read(size)


@lru_cache(maxsize=1)
def tar_index(path: Path) -> list[tuple[str, dict[str, Span]]]:
    """Key and members of each sample, in the order in which the keys appear. Reads headers only. DataError."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            samples = _samples(tar)
            _require_end(file, tar.offset)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{shown_name(path)} is cut short or no uncompressed tar ({error}): fetch it again, or move it away"
        ) from None
    return list(samples.items())


def _samples(tar: tarfile.TarFile) -> dict[str, dict[str, Span]]:
    samples: dict[str, dict[str, Span]] = {}
    for member in tar:
        folder, _, file = member.name.rpartition("/")
        stem, dot, extension = file.partition(".")
        if member.isfile() and stem and dot and not any(map(is_left_behind, folder.split("/"))):
            key = f"{folder}/{stem}" if folder else stem
            samples.setdefault(key, {})[extension.lower()] = (member.offset_data, member.size)
    return samples


def _require_end(file: BinaryIO, offset: int) -> None:
    """ReadError unless the archive ends at `offset` as tars end: zeros, from there to the end of the file.

    The reader takes the end of the file, a damaged header and zeros alike for the end. A tar cut between two
    members shows by nothing but the block of zeros that it lacks; behind the zeros, joined tars go on.
    """
    file.seek(offset)
    mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it lacks the zeros that a tar ends with")
    if any(mark):
        raise tarfile.ReadError(f"the header at byte {offset} is damaged")
    while block := file.read(1 << 20):
        if any(block):
            raise tarfile.ReadError("more follows its end: tars are joined by `tar -A`, not by `cat`")


def find(options: PrepareOptions) -> Found:
    root, paths = files_of_split(options.input, ".tar", options.split)
    if not paths:
        raise DataError(f"{root} holds no .tar files")
    files = names_and_sizes(root, paths)
    label_member = options.label_column or "cls"
    conditioning = options.wants or _conditioning(paths[0], label_member)
    parts = [TarPart(root, name, conditioning, label_member, options.caption_field) for name, _ in files]
    columns = {"label": label_member} if conditioning == "label" else {"caption": options.caption_field or "txt"}
    return Found(conditioning, parts, listing_digest(files), columns)


def _conditioning(path: Path, label_member: str) -> Conditioning:
    """What the first samples of a tar have."""
    part = TarPart(path.parent, path.name, "caption", label_member, None)
    has_caption = any(isinstance(item, Item) and item.caption for item in part.read(0, LOOKED_AT))
    has_label = any(label_member in spans for _, spans in islice(tar_index(path), LOOKED_AT))
    if has_caption == has_label:
        what = "both captions and class ids" if has_caption else "neither captions nor class ids"
        raise DataError(
            f"the first samples of {path} have {what}: name what to take with --caption-field (a field of "
            f"KEY.json) or --label-column (an extension, such as {label_member})"
        )
    return "caption" if has_caption else "label"


def _label(members: _Members, extension: str) -> int | None:
    text = members.read(extension)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"its .{extension} is {text[:40]!r}, not a class id") from None


def _caption(members: _Members, field: str | None) -> str | None:
    text = members.read("txt") if field is None else None
    if text is not None:
        return decoded(text)
    stored = members.read("json")
    if stored is None:
        return None
    try:
        value = parsed_json(stored)
    except ValueError:
        raise ValueError("its .json cannot be parsed") from None
    for step in (field or "caption").split("."):
        value = _entry(value, step)
    return repaired(value) if isinstance(value, str) else None


def _entry(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None
