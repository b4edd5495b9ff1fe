"""Shards as a source: the pictures of a folder, captions padded on the left, and what does not fit.

Letters: L caption tokens, D width of a caption feature.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.build import build_reward
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source, require_readable
from actors.sources.image_folder import ImageFolder
from actors.sources.parquet import Parquet
from actors.sources.split import Split
from common.clock import StageClock
from common.config.data import ImageFolderSource, ParquetSource
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import BrokenImageError, DataError
from common.image_shards import Captions, Manifest, shard_schema
from common.models.families import build_policy, build_tokenizer, class_format, condition_format
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.schema import from_table, to_table
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare

L, D = 5, 4
CLASS_POLICY = LlamaGenPolicySpec(size="B", num_classes=10, checkpoint="")
TEXT_POLICY = LlamaGenPolicySpec(size="B", conditioning="text", caption_dim=D, caption_length=L, checkpoint="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of several sizes, in two class folders."""
    root = tmp_path_factory.mktemp("folder")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(256, size=(20 + number, 50, 3), dtype=np.uint8)
        path = root / "ab"[number % 2] / f"{number:02d}.{'jpg' if number % 3 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "shards"
    prepare(PrepareOptions(folder, output, image_size=16, shard_size=15))
    return output


def parquet(path: Path, policy: LlamaGenPolicySpec = CLASS_POLICY, image_size: int = 16, **keys: Any) -> Parquet:
    split = keys.pop("split", "train")
    spec = ParquetSource(kind="parquet", path=str(path), **keys)
    return Parquet(spec, condition_format(policy), image_size, split)


def pictures(folder: Path, split: Split = "train", **keys: Any) -> ImageFolder:
    """What the shards were made from."""
    spec = ImageFolderSource(kind="image_folder", path=str(folder), **keys)
    return ImageFolder(spec, class_format(CLASS_POLICY), 16, split)


def write_shards(path: Path, rows: Sequence[Mapping[str, Any]], captions: Captions | None = None) -> Path:
    """A folder with one shard of these rows, as `prepare` would leave it."""
    conditioning = "caption" if captions else "label"
    schema = shard_schema(conditioning, with_features=captions is not None)
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path / "shard-00000.parquet", row_group_size=8)
    manifest = Manifest(
        format=1,
        kind="tars",
        conditioning=conditioning,
        image_size=32,
        num_rows=len(rows),
        num_skipped=0,
        columns={},
        rows_per_group=8,
        classes=(),
        max_label=-1,
        captions=captions,
        input="",
        input_items=len(rows),
        input_sha256="",
        shard_rows={"shard-00000.parquet": len(rows)},
    )
    manifest.write(path)
    return path


def png(number: int) -> bytes:
    sink = pa.BufferOutputStream()
    pixels = np.random.default_rng(number).integers(256, size=(32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(sink, "png")
    return sink.getvalue().to_pybytes()


def features(number: int) -> np.ndarray:
    """float16 [1 … L, D]."""
    return np.random.default_rng(number).normal(size=(1 + number % L, D)).astype(np.float16)


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    rows = [
        {
            "image_id": f"x.tar/{number}.png",
            "image": png(number),
            "caption": "a photo",
            "caption_tokens": len(features(number)),
            "caption_features": features(number).tobytes(),
        }
        for number in range(20)
    ]
    return write_shards(tmp_path / "captioned", rows, Captions("t5", D, L))


def test_shards_give_the_pictures_of_the_folder_they_were_made_from(folder: Path, shards: Path) -> None:
    expected = ImageFolder(
        ImageFolderSource(kind="image_folder", path=str(folder)), class_format(CLASS_POLICY), 16, "train"
    )
    source = parquet(shards)
    assert len(source) == len(expected) == 40
    for index in np.random.default_rng(0).permutation(40):
        image, original = source.read(int(index)), expected.read(int(index))
        assert image.image_id == original.image_id
        np.testing.assert_array_equal(image.pixels, original.pixels)
        assert image.condition["label"] == original.condition["label"]
        assert image.condition["label"].dtype == np.int64


def test_splits_and_fractions_are_those_of_the_folder(folder: Path, shards: Path) -> None:
    keys = {"held_out_fraction": 0.25, "split_seed": 3, "fraction": 0.5, "seed": 4}
    for split, num_images in (("train", 15), ("held_out", 10)):
        expected = ImageFolder(
            ImageFolderSource(kind="image_folder", path=str(folder), **keys), class_format(CLASS_POLICY), 16, split
        )
        source = parquet(shards, split=split, **keys)
        names = [source.read(index).image_id for index in range(len(source))]
        assert names == [expected.read(index).image_id for index in range(len(expected))]
        assert len(names) == num_images


def test_captions_are_padded_on_the_left_with_zeros(captioned: Path) -> None:
    source = parquet(captioned, TEXT_POLICY, 32)
    for number in range(20):
        condition = source.read(number).condition
        stored_LD = features(number)
        missing = L - len(stored_LD)
        assert condition["caption_features"].dtype == np.float16
        np.testing.assert_array_equal(condition["caption_features"][missing:], stored_LD)
        assert not condition["caption_features"][:missing].any()
        assert condition["caption_mask"].tolist() == [0] * missing + [1] * len(stored_LD)


def test_captioned_shards_feed_a_text_conditional_rollout(captioned: Path, tiny_recipe: Recipe) -> None:
    changes = {"conditioning": "text", "caption_dim": D, "caption_length": L}
    recipe = with_changes(
        tiny_recipe,
        {f"policy.{key}": value for key, value in changes.items()}
        | {"source": {"kind": "parquet", "path": str(captioned)}, "reward.lpips": 0},
    )
    torch.manual_seed(0)
    tokenizer = build_tokenizer(recipe.tokenizer, image_size=32).eval()
    policy = build_policy(recipe.policy, codebook_size=20, grid_size=8).eval()
    reward = build_reward(recipe.reward, tokenizer, None)
    pipeline = RolloutPipeline(recipe, build_source(recipe, "train"), tokenizer, reward, torch.device("cpu"))
    groups = pipeline.roll_out(policy, 0, (0, 1, 2), StageClock()).groups
    assert groups is not None
    assert groups.condition["caption_features"].shape == (3, L, D)
    received = from_table(to_table(groups))  # as the learner gets them
    for name, column in groups.condition.items():
        np.testing.assert_array_equal(received.condition[name], column)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    images = [png(0), png(1)[:200], b"no picture", png(3)]
    rows = [{"image_id": f"{number}.png", "image": image, "label": 1} for number, image in enumerate(images)]
    source = parquet(write_shards(tmp_path / "x", rows), image_size=32)
    with pytest.raises(BrokenImageError, match=r"^1.png is not a readable image"):
        source.read(1)
    batch = batch_of(start_reading(source, [0, 1, 2, 3]))
    assert isinstance(batch, ImageBatch)
    assert batch.positions == (0, 3)
    assert {position: error.image_id for position, error in batch.broken.items()} == {1: "1.png", 2: "2.png"}


def test_a_damaged_shard_breaks_its_rows_and_no_others(shards: Path, tmp_path: Path) -> None:
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "shard-00001.parquet").write_bytes(b"")
    source = parquet(tmp_path)
    source.read(0)
    source.read(39)
    with pytest.raises(BrokenImageError, match=r"^shard-00001.parquet\[2\] is not a readable image: .*size is 0"):
        source.read(17)
    require_readable(source)


def test_threads_read_what_one_does(shards: Path) -> None:
    indices = [3, 30, 17, 3, 39, 0, 16, 31] * 4
    alone = batch_of(start_reading(parquet(shards), indices))
    with ThreadPoolExecutor(8) as executor:
        together = batch_of(start_reading(parquet(shards), indices, executor))
    assert isinstance(alone, ImageBatch)
    assert isinstance(together, ImageBatch)
    assert alone.image_ids == together.image_ids
    np.testing.assert_array_equal(alone.pixels_BHWC, together.pixels_BHWC)


def test_a_folder_without_a_manifest_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest.json: make it with `python -m deploy prepare INPUT"):
        parquet(tmp_path)


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((shards / "manifest.json").read_bytes())
    with pytest.raises(DataError, match=r"lacks shard-00000.parquet"):
        parquet(tmp_path)


def test_an_empty_split_names_the_key_to_change(shards: Path) -> None:
    with pytest.raises(DataError, match=r"set source.held_out_fraction above 0"):
        parquet(shards, split="held_out")


@pytest.mark.parametrize(
    ("policy", "image_size", "said"),
    [
        (CLASS_POLICY, 32, "hold images of 16 px and image_size is 32: prepare them with --image-size 32, or set"),
        (CLASS_POLICY.model_copy(update={"num_classes": 1}), 16, "hold class id 1 and policy.num_classes is 1"),
        (TEXT_POLICY, 16, "hold no text features: prepare captioned pictures with --text-encoder"),
    ],
)
def test_shards_of_classes_that_do_not_fit_the_recipe(
    policy: LlamaGenPolicySpec, image_size: int, said: str, shards: Path
) -> None:
    with pytest.raises(DataError, match=said):
        parquet(shards, policy, image_size)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"caption_dim": 2048}, r"are 4 wide \(t5\) and policy.caption_dim is 2048"),
        (
            {"caption_length": 3},
            "up to 5 tokens and policy.caption_length is 3: prepare them with --caption-length 3",
        ),
        ({"conditioning": "class"}, "policy.conditioning is class, but the shards at .* hold captions"),
    ],
)
def test_shards_of_captions_that_do_not_fit_the_recipe(
    changes: dict[str, Any], said: str, captioned: Path
) -> None:
    with pytest.raises(DataError, match=said):
        parquet(captioned, TEXT_POLICY.model_copy(update=changes), 32)
