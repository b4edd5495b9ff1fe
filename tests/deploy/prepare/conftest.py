"""200 pictures, three of them broken, laid out in every way that `prepare` reads; and a very small T5."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deploy.prepare.options import PrepareOptions

IMAGE_SIZE = 16
CLASSES = ("ant", "bee", "cat", "dog")
BROKEN = (7, 100, 163)
WORDS = ("red", "blue", "green", "photo", "of", "a", "grass")


@dataclass(frozen=True)
class Picture:
    number: int
    content: bytes  # PNG, 24 x 20; cut short where broken
    pixels: np.ndarray

    @property
    def label(self) -> int:
        return self.number // 50

    @property
    def file(self) -> str:
        return f"{CLASSES[self.label]}/{self.number:03d}.png"

    @property
    def caption(self) -> str:
        return " ".join(WORDS[(self.number * step) % len(WORDS)] for step in range(1, 2 + self.number % 5))


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    made = []
    for number in range(200):
        pixels = np.random.default_rng(number).integers(256, size=(20, 24, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        content = file.getvalue()
        made.append(Picture(number, content[:300] if number in BROKEN else content, pixels))
    return made


@pytest.fixture(scope="session")
def as_folder(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    for picture in pictures:
        (root / picture.file).parent.mkdir(exist_ok=True)
        (root / picture.file).write_bytes(picture.content)
    return root


@pytest.fixture(scope="session")
def as_tars(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars of 80, 80 and 40 captioned pictures."""
    root = tmp_path_factory.mktemp("tars")
    for start in (0, 80, 160):
        samples = [
            {f"{each.number:03d}.png": each.content, f"{each.number:03d}.txt": each.caption.encode()}
            for each in pictures[start : start + 80]
        ]
        write_tar(root / f"{start:05d}.tar", samples)
    return root


@pytest.fixture(scope="session")
def as_parquet(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files in the hub's layout, with row groups of 30, beside the file of another split."""
    root = tmp_path_factory.mktemp("parquet")
    (root / "data").mkdir()
    for part in range(2):
        table = hub_table(pictures[part * 100 : part * 100 + 100], ("label",))
        pq.write_table(table, root / "data" / f"train-0000{part}-of-00002.parquet", row_group_size=30)
    pq.write_table(hub_table(pictures[:5], ("label",)), root / "data" / "validation-00000-of-00001.parquet")
    return root


@pytest.fixture(scope="session")
def as_saved(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `DatasetDict.save_to_disk` leaves: Arrow streams, in a folder a split."""
    root = tmp_path_factory.mktemp("saved")
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    names = [f"data-0000{part}-of-00002.arrow" for part in range(2)]
    (root / "train").mkdir()
    for part, name in enumerate(names):
        table = hub_table(pictures[part * 100 : part * 100 + 100], ("label",))
        with pa.ipc.new_stream(root / "train" / name, table.schema) as stream:
            stream.write_table(table, max_chunksize=30)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}
    (root / "train" / "state.json").write_text(json.dumps(state))
    return root


def hub_table(pictures: Sequence[Picture], conditions: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {
        "image": [{"bytes": each.content, "path": f"{each.number}.png"} for each in pictures]
    }
    columns |= {name: [getattr(each, name) for each in pictures] for name in conditions}
    table = pa.table(columns)
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_tar(path: Path, samples: Sequence[dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for name, content in sample.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., PrepareOptions]:
    """options(input, **changes): in this process, four shards of 50 items, into a folder of the test's own."""

    def make(path: Path, **changes: Any) -> PrepareOptions:
        own = {"output": tmp_path / "shards", "image_size": IMAGE_SIZE, "shard_size": 50}
        return PrepareOptions(input=path, **own | changes)

    return make


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.parquet"))}


def all_rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("shard-*.parquet")))


def skipped(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


def make_t5(folder: Path, width: int) -> Path:
    """A random T5, encoder and decoder as flan-t5 is published, `width` wide, with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    size = T5Config(vocab_size=16, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5ForConditionalGeneration(size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_t5(tmp_path_factory.mktemp("t5"), width=16)
