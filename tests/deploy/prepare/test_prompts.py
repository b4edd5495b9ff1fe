"""Prompts of Janus-Pro in shards, from every kind of captioned input."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.sources.parquet import Parquet
from common.config.data import ParquetSource
from common.errors import DataError, UserError
from common.image_shards import read_manifest
from common.models.janus.conditions import PromptConditions
from common.models.janus.prompts import PromptTokenizer
from common.paths import CHECKOUT
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare
from tests.common.models.janus.golden import DATA, POLICY
from tests.deploy.prepare.conftest import Picture, all_rows, hub_table, shard_bytes, skipped

Make = Callable[..., PrepareOptions]
TOKENIZER = DATA / "hf"


@pytest.fixture
def captioned_folder(pictures: list[Picture], tmp_path: Path) -> Path:
    root = tmp_path / "captioned"
    for picture in pictures[:20]:
        path = root / ("deep" if picture.number % 2 else ".") / f"{picture.number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.content)
        if picture.number != 4:
            path.with_suffix(".txt").write_text(f" {picture.caption}\n")
    return root


@pytest.fixture
def captioned_parquet(pictures: list[Picture], tmp_path: Path) -> Path:
    (tmp_path / "table").mkdir()
    pq.write_table(hub_table(pictures[:20], ("caption",)), tmp_path / "table" / "train.parquet")
    return tmp_path / "table"


@pytest.mark.parametrize("kind", ["as_tars", "captioned_folder", "captioned_parquet"])
def test_each_row_has_the_ids_of_its_caption(kind: str, options: Make, request: pytest.FixtureRequest) -> None:
    asked = options(request.getfixturevalue(kind), prompts=str(TOKENIZER), prompt_length=28)
    manifest = prepare(asked)
    tokenizer = PromptTokenizer(TOKENIZER, 28)
    rows = all_rows(asked.output).to_pylist()
    assert len(rows) == manifest.num_rows > 17
    for row in rows:
        assert [row["prompt_ids"], row["null_prompt_ids"]] == tokenizer.of_caption(row["caption"]).tolist()
    assert manifest == read_manifest(asked.output)
    assert manifest.prompts is not None
    assert (manifest.prompts.tokenizer, manifest.prompts.length) == (str(TOKENIZER), 28)
    assert manifest.prompts.vocabulary_size == 296


def test_a_picture_of_a_folder_without_a_text_is_skipped_by_name(captioned_folder: Path, options: Make) -> None:
    asked = options(captioned_folder, prompts=str(TOKENIZER))
    prepare(asked)
    assert {"name": "004.png", "reason": "it has no caption"} in skipped(asked.output)
    assert "deep/003.png" in all_rows(asked.output)["image_id"].to_pylist()


def test_shards_come_out_the_same_by_one_and_by_two_calls(as_tars: Path, options: Make, tmp_path: Path) -> None:
    whole = options(as_tars, prompts=str(TOKENIZER), output=tmp_path / "whole")
    prepare(whole)
    asked = options(as_tars, prompts=str(TOKENIZER))
    prepare(asked)
    (asked.output / "shard-00002.parquet").unlink()
    prepare(asked)
    assert shard_bytes(asked.output) == shard_bytes(whole.output)
    with pytest.raises(UserError, match="--prompt-length"):
        prepare(options(as_tars, prompts=str(TOKENIZER), prompt_length=20))


def test_the_source_gives_the_columns_of_the_policy_without_a_tokenizer(as_tars: Path, options: Make) -> None:
    asked = options(as_tars, prompts=str(TOKENIZER), prompt_length=28)
    prepare(asked)
    conditions = PromptConditions(POLICY)
    source = Parquet(ParquetSource(kind="parquet", path=str(asked.output)), conditions, 16, "train")
    row = all_rows(asked.output).slice(5, 1).to_pylist()[0]
    expected = conditions.of_caption(PromptTokenizer(TOKENIZER, 28).of_caption(row["caption"]))
    condition = source.read(5).condition
    assert condition.keys() == expected.keys() == conditions.columns.keys()
    for name, column in condition.items():
        assert np.array_equal(column, expected[name]), name


def test_shards_that_do_not_fit_the_policy_are_refused(as_tars: Path, options: Make) -> None:
    def refusal(**changes: object) -> str:
        spec = POLICY.model_copy(update=changes)
        with pytest.raises(DataError) as refused:
            Parquet(ParquetSource(kind="parquet", path=str(asked.output)), PromptConditions(spec), 16, "train")
        return str(refused.value)

    asked = options(as_tars, prompts=str(TOKENIZER), prompt_length=28)
    prepare(asked)
    assert "up to 28 tokens and policy.prompt_length is 27: set policy.prompt_length=28" in refusal(
        prompt_length=27
    )
    small = POLICY.network.model_copy(update={"vocabulary_size": 290})
    assert "a tokenizer with 296 tokens" in refusal(size=small)
    asked = options(as_tars, output=asked.output.with_name("plain"))
    prepare(asked)
    assert "hold no prompts: prepare captioned pictures with --prompts" in refusal()


def test_a_tokenizer_that_is_not_there_is_named_before_anything_is_written(as_tars: Path, options: Make) -> None:
    asked = options(as_tars, prompts="/no/such/model")
    with pytest.raises(UserError, match=r"there is no /no/such/model: name the tokenizer\.json"):
        prepare(asked)
    assert not asked.output.exists()


def test_the_shipped_prompts_are_those_of_the_shipped_tokenizer() -> None:
    folder = CHECKOUT / "deploy" / "recipes" / "tiny"
    tokenizer = PromptTokenizer(folder / "janus", 128)
    table: pa.Table = pq.read_table(folder / "prompted" / "shard-00000.parquet")
    for row in table.to_pylist():
        assert [row["prompt_ids"], row["null_prompt_ids"]] == tokenizer.of_caption(row["caption"]).tolist()
        assert Image.open(io.BytesIO(row["image"])).size == (32, 32)
    assert json.loads((folder / "prompted" / "settings.json").read_text())["--prompts"].endswith("tiny/janus")
