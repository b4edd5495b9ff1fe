"""`python -m deploy convert`, as a user calls it."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.atomic import write_json
from common.config.load import with_changes
from common.config.lora import LoraSection
from common.config.recipe import Recipe
from common.models.adapter_files import AdaptersOf, base_of
from common.models.families import build_policy, build_tokenizer
from common.models.llamagen.spec import TRANSFORMER_SIZES, LlamaGenPolicySpec, TransformerSize
from common.models.weights_files import LAYOUTS, save_published
from common.paths import CHECKOUT
from deploy.__main__ import main
from learner.checkpoint import CheckpointState, training_state, write_checkpoint

DATA = CHECKOUT / "tests" / "data" / "llamagen"
CLASS, FSDP, TEXT = (DATA / f"llamagen_{name}.pt" for name in ("c2i_tiny", "c2i_tiny_fsdp", "t2i_tiny"))


@pytest.fixture
def fixture_recipe(tiny_recipe: Recipe, tmp_path: Path) -> Path:
    """A recipe whose policy is that of the class-conditional files of tests/data."""
    size = {"num_layers": 2, "num_heads": 4, "dim": 64, "ffn_multiple": 32}
    return written(with_changes(tiny_recipe, {"policy.size": size, "tokenizer.size.codebook_size": 64}), tmp_path)


@pytest.fixture
def text_recipe(fixture_recipe: Path, tiny_recipe: Recipe, tmp_path: Path) -> Path:
    size = {"num_layers": 2, "num_heads": 4, "dim": 64, "ffn_multiple": 32}
    changes = {
        "source": {"kind": "parquet", "path": "captions"},
        "policy.size": size,
        "policy.conditioning": "text",
        "policy.caption_dim": 24,
        "tokenizer.size.codebook_size": 64,
    }
    return written(with_changes(tiny_recipe, changes), tmp_path)


def written(recipe: Recipe, folder: Path) -> Path:
    path = folder / f"{recipe.policy.conditioning}.json"
    write_json(path, recipe.model_dump(mode="json"))
    return path


def convert(*words: object) -> int:
    return main(["convert", *(str(word) for word in words)])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert convert(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def published(path: Path) -> dict[str, Tensor]:
    """The state dict of a `.pt` file, found as LlamaGen's samplers find it."""
    content = torch.load(path, weights_only=True)
    return next((content[key] for key in LAYOUTS if key in content), content)


def assert_same_bits(ones: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        assert one.dtype == others[name].dtype
        assert one.shape == others[name].shape
        assert one.contiguous().view(torch.uint8).equal(others[name].contiguous().view(torch.uint8)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_again_every_bit_is_the_same(
    layout: str, dtype: torch.dtype, fixture_recipe: Path, tmp_path: Path
) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in published(CLASS).items()}
    weights["norm.weight"][0] = float("nan")  # whatever is stored
    there, between, back = tmp_path / "there.pt", tmp_path / "between.safetensors", tmp_path / "back.pth"
    torch.save(weights if layout == "bare" else {layout: weights, "steps": 7}, there)
    assert convert(there, between, "--recipe", fixture_recipe) == 0
    assert_same_bits(load_file(between), weights)
    assert convert(between, back, "--recipe", fixture_recipe, "--layout", layout) == 0
    content = torch.load(back, weights_only=True)
    assert layout == "bare" or list(content) == [layout]
    assert_same_bits(content if layout == "bare" else content[layout], weights)


@pytest.mark.parametrize("source", [CLASS, FSDP, TEXT], ids=lambda path: path.stem)
def test_published_files_become_safetensors_and_published_files_again(
    source: Path, fixture_recipe: Path, text_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, between, back = text_recipe if source == TEXT else fixture_recipe, tmp_path / "a.safetensors", "b.pt"
    assert convert(source, between, "--recipe", recipe) == 0
    weights = published(source)
    count = sum(tensor.numel() for tensor in weights.values())
    assert capsys.readouterr().out.splitlines() == [
        f"the recipe's policy: {len(weights)} tensors, {count:,} numbers",
        f"wrote {between} (float32, {between.stat().st_size / 1e6:.1f} MB)",
    ]
    assert_same_bits(load_file(between), weights)
    assert convert(between, tmp_path / back, "--recipe", recipe) == 0
    content = torch.load(tmp_path / back, weights_only=True)
    assert list(content) == ["model"]  # what the published samplers look for first
    assert list(content["model"]) == list(weights)  # and in its order
    assert_same_bits(content["model"], weights)


def test_a_published_size_is_recognised_without_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TRANSFORMER_SIZES, "B", TransformerSize(num_layers=1, num_heads=1, dim=4, ffn_multiple=4))
    spec = LlamaGenPolicySpec(size="B", checkpoint="")
    weights = build_policy(spec, codebook_size=16384, grid_size=16).state_dict()
    torch.save(weights, tmp_path / "b.pt")
    assert convert(tmp_path / "b.pt", tmp_path / "b.safetensors") == 0
    assert capsys.readouterr().out.startswith("LlamaGen-B, class-conditional: 11 tensors, ")
    assert_same_bits(load_file(tmp_path / "b.safetensors"), dict(weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_folder_of_a_run_becomes_a_published_file(
    dtype: torch.dtype, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    policy = build_policy(tiny_recipe.policy, codebook_size=20, grid_size=8).to(dtype)
    state = CheckpointState(step=3, ledger={}, groups_learned=12, images_skipped=0, recipe={})
    checkpoint = write_checkpoint(tmp_path / "checkpoints", training_state(policy.state_dict(), {}), state)
    recipe = written(tiny_recipe, tmp_path)
    assert convert(checkpoint, tmp_path / "trained.pt", "--recipe", recipe, "--what", "policy") == 0
    assert_same_bits(torch.load(tmp_path / "trained.pt", weights_only=True)["model"], policy.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_of_a_run_are_merged_into_the_base_that_they_name(
    dtype: torch.dtype, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = build_policy(tiny_recipe.policy, codebook_size=20, grid_size=8).to(dtype).state_dict()
    save_published(base, tmp_path / "base.pt", "model")
    down, up = torch.randn(3, 16), torch.randn(16, 3)
    adapters = {"layers.1.attention.wo.lora_A.weight": down, "layers.1.attention.wo.lora_B.weight": up}
    state = CheckpointState(step=3, ledger={}, groups_learned=12, images_skipped=0, recipe={})
    of = AdaptersOf(LoraSection(rank=3, alpha=6), base_of(str(tmp_path / "base.pt")))
    checkpoint = write_checkpoint(tmp_path / "checkpoints", training_state(adapters, {}), state, of)
    recipe = written(with_changes(tiny_recipe, {"policy.checkpoint": str(tmp_path / "base.pt")}), tmp_path)
    assert convert(checkpoint, tmp_path / "merged.pt", "--recipe", recipe) == 0
    assert convert(checkpoint, tmp_path / "wide.pt", "--recipe", recipe, "--dtype", "float32") == 0
    added = base["layers.1.attention.wo.weight"].float() + 2 * (up @ down)
    expected = base | {"layers.1.attention.wo.weight": added.to(dtype)}
    assert_same_bits(torch.load(tmp_path / "merged.pt", weights_only=True)["model"], expected)
    wide = torch.load(tmp_path / "wide.pt", weights_only=True)["model"]
    assert wide["layers.1.attention.wo.weight"].equal(added)  # not rounded on the way

    base["norm.weight"] = base["norm.weight"] + 1
    save_published(base, tmp_path / "base.pt", "model")
    said = refusal(capsys, checkpoint, tmp_path / "again.pt", "--recipe", recipe)
    assert said.startswith(f"The adapters {checkpoint / 'adapter_model.safetensors'} were trained beside ")
    assert not (tmp_path / "again.pt").exists()


def test_a_tokenizer_gets_the_key_that_the_published_loader_demands_and_loses_none(
    tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = build_tokenizer(tiny_recipe.tokenizer, image_size=32)
    weights = tokenizer.state_dict()
    del weights["quantize.codebook_used"]
    save_file(weights | {"freqs_cis": torch.ones(3)}, tmp_path / "vq.safetensors")
    recipe = written(tiny_recipe, tmp_path)
    assert convert(tmp_path / "vq.safetensors", tmp_path / "vq.pt", "--recipe", recipe) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("the recipe's tokenizer: ")
    assert lines[1:3] == ["left out: freqs_cis", "filled with zeros: quantize.codebook_used"]
    tokenizer.load_state_dict(torch.load(tmp_path / "vq.pt", weights_only=True)["model"], strict=True)


@pytest.mark.parametrize("name", ["half.safetensors", "half.pt"])
def test_a_cast_rounds_every_tensor(name: str, fixture_recipe: Path, tmp_path: Path) -> None:
    target = tmp_path / name
    assert convert(CLASS, target, "--recipe", fixture_recipe, "--dtype", "bfloat16") == 0
    stored = load_file(target) if target.suffix == ".safetensors" else published(target)
    assert_same_bits(stored, {name: tensor.bfloat16() for name, tensor in published(CLASS).items()})


def test_a_type_that_cannot_hold_the_numbers_is_refused(
    fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = published(CLASS)
    weights["norm.weight"][3] = -1e5
    save_file(weights, tmp_path / "large.safetensors")
    target = tmp_path / "half.pt"
    options = (tmp_path / "large.safetensors", target, "--recipe", fixture_recipe, "--dtype", "float16")
    assert refusal(capsys, *options) == (
        "--dtype is float16, which ends at 65504, but norm.weight reaches 100000: choose bfloat16 or float32"
    )
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_file_is_refused(
    suffix: str, fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / f"cut{suffix}", tmp_path / "new.safetensors"
    save_file(published(CLASS), source)
    source.write_bytes((CLASS if suffix == ".pt" else source).read_bytes()[:200_000])
    message = refusal(capsys, source, target, "--recipe", fixture_recipe)
    assert message.startswith(f"The weights {source} (200000 bytes) cannot be read (")
    assert message.endswith("replace it with a complete copy, or point SOURCE at another file.")
    assert not target.exists()


def test_a_renamed_key_is_named_and_nothing_is_written(
    fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = published(CLASS)
    weights["layers.1.attention.wqkv_weight"] = weights.pop("layers.1.attention.wqkv.weight")
    torch.save({"model": weights}, tmp_path / "renamed.pt")
    target = tmp_path / "new.safetensors"
    message = refusal(capsys, tmp_path / "renamed.pt", target, "--recipe", fixture_recipe)
    assert message == (
        f"The weights {tmp_path / 'renamed.pt'} do not fit the recipe's policy (missing keys: 1 "
        "(layers.1.attention.wqkv.weight); unexpected keys: 1 (layers.1.attention.wqkv_weight)): make the "
        "recipe's settings those of the file, or name another recipe."
    )
    assert not target.exists()


def test_a_wrong_size_is_told_the_nearest_published_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, CLASS, tmp_path / "new.safetensors")
    assert message.startswith(
        f"The weights {CLASS} fit no published model; the nearest is LlamaGen-B, class-conditional "
        "(missing keys: 70 (layers.2.attention.wqkv.weight, "
    )
    assert "wrong shapes: 18 (cls_embedding.embedding_table.weight is [11, 64] and must be [1001, 768]" in message
    assert message.endswith("or name the recipe of a model of your own by --recipe.")
    assert list(tmp_path.iterdir()) == []


def test_another_kind_than_asked_for_is_refused(
    fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (CLASS, tmp_path / "new.pt", "--recipe", fixture_recipe, "--what", "tokenizer")
    assert "do not fit the recipe's tokenizer" in refusal(capsys, *options)
    assert "fit no published tokenizer" in refusal(capsys, CLASS, tmp_path / "new.pt", "--what", "tokenizer")


def test_an_existing_target_is_replaced_only_when_asked(
    fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "weights.pt"
    shutil.copy(CLASS, target)
    options = (target, target, "--recipe", fixture_recipe, "--layout", "bare")
    assert refusal(capsys, *options) == f"TARGET {target} exists: name another, or replace it by --overwrite"
    assert target.read_bytes() == CLASS.read_bytes()
    assert convert(*options, "--overwrite") == 0  # even though it is read while the new one is written
    assert_same_bits(torch.load(target, weights_only=True), published(CLASS))


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        ("new.bin", (), "name it .safetensors, .pt or .pth, which says what to write"),
        ("new.safetensors", ("--layout", "bare"), "--layout is bare, but new.safetensors has no layouts"),
        ("folder.pt", (), "is a folder: name a file"),
        ("file/new.pt", (), "cannot be written ("),
    ],
)
def test_targets_that_cannot_be_are_refused(
    target: str,
    options: tuple[str, ...],
    sentence: str,
    fixture_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "file").touch()
    assert sentence in refusal(capsys, CLASS, tmp_path / target, "--recipe", fixture_recipe, *options)


@pytest.mark.parametrize("name", ["gone.pt", "folder", "weights.bin"])
def test_sources_that_cannot_be_are_refused(
    name: str, fixture_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.bin").touch()
    message = refusal(capsys, tmp_path / name, tmp_path / "new.pt", "--recipe", fixture_recipe)
    assert str(tmp_path / name) in message
    assert "point SOURCE at " in message


def test_a_write_that_fails_leaves_the_old_file_and_no_half_of_a_new_one(
    fixture_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object, file) -> None:
        file.write(b"half")
        raise RuntimeError("no space left\nmore")

    monkeypatch.setattr(torch, "save", full)
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "weights.pt"
    shutil.copy(CLASS, target)
    message = refusal(capsys, FSDP, target, "--recipe", fixture_recipe, "--overwrite")
    assert message == f"TARGET {target} cannot be written (no space left): make room there, or name another"
    assert list(folder.iterdir()) == [target]
    assert target.read_bytes() == CLASS.read_bytes()
