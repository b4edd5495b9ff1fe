"""What weights files hold beside or around the model's own tensors: it is read, or refused by what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import CheckpointError
from common.models.weights_files import check_weights, load_weights
from tests.common.models.test_weights_files import refusal, small_tokenizer, tiny

Weights = dict[str, Tensor]


def assert_loads(path: Path, donor: nn.Module) -> None:
    with torch.device("meta"):
        model = tiny()
    check_weights(model, path, what="policy")
    load_weights(model, path, what="policy")
    for name, tensor in donor.state_dict().items():
        assert model.state_dict()[name].equal(tensor), name


def renamed(rename: Callable[[str], str]) -> Weights:
    return {rename(name): tensor for name, tensor in tiny().state_dict().items()}


@pytest.fixture
def donor() -> nn.Module:
    torch.manual_seed(3)
    return tiny()


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "gpt_model.", "a.b.module.c."],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_wraps_a_model_does_not_change_what_it_is(
    prefix: str, suffix: str, donor: nn.Module, tmp_path: Path
) -> None:
    weights = {prefix + name: tensor for name, tensor in donor.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(weights, path) if suffix == ".pt" else save_file(weights, path)
    assert_loads(path, donor)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_blocks_that_are_wrapped_one_by_one_are_read(wrapper: str, donor: nn.Module, tmp_path: Path) -> None:
    weights = {
        name.replace("layers.0.", f"layers.0.{wrapper}."): tensor for name, tensor in donor.state_dict().items()
    }
    torch.save({"model": weights}, tmp_path / "wrapped.pt")
    assert_loads(tmp_path / "wrapped.pt", donor)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": {"model": weights}},
        lambda weights: {"state_dict": weights, "hyper_parameters": {"lr": 1e-4}, "epoch": 3},
        lambda weights: {"module": {"module." + name: tensor for name, tensor in weights.items()}},
        lambda weights: {"ema": weights, "step": 7},
        lambda weights: {"model": {**weights, "step": 100}},
        lambda weights: {**weights, "step": 100, "note": "best"},
        lambda weights: {"model": weights, "ema": {name: tensor + 1 for name, tensor in weights.items()}},
    ],
)
@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "last.ckpt"])
def test_a_state_dict_is_found_wherever_training_scripts_put_it(
    wrap: Callable[[Weights], Any], name: str, donor: nn.Module, tmp_path: Path
) -> None:
    torch.save(wrap(dict(donor.state_dict())), tmp_path / name)
    assert_loads(tmp_path / name, donor)


def test_two_models_in_one_file_are_refused_with_their_prefixes(tmp_path: Path) -> None:
    torch.save(renamed("ema.".__add__) | renamed("policy.".__add__), tmp_path / "both.pt")
    message = refusal(tiny(), tmp_path / "both.pt")
    assert "hold the model's keys under ema. and under policy., beside others" in message


def test_a_tensor_that_is_there_wrapped_and_plain_is_refused(tmp_path: Path) -> None:
    torch.save(renamed(str) | renamed("module.".__add__), tmp_path / "twice.pt")
    message = refusal(tiny(), tmp_path / "twice.pt")
    assert "name a tensor twice (cls_embedding.embedding_table.weight and module.cls_embedding." in message


def shard(folder: Path, donor: nn.Module, kind: str) -> Path:
    """Two shards and their index, as the Hugging Face libraries write them."""
    names = list(donor.state_dict())
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    places = {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        name = f"{stem}-0000{number}-of-00002.{kind}"
        weights = {each: donor.state_dict()[each] for each in part}
        torch.save(weights, folder / name) if kind == "bin" else save_file(weights, folder / name)
        places |= dict.fromkeys(part, name)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_or_their_folder(kind: str, donor: nn.Module, tmp_path: Path) -> None:
    assert_loads(shard(tmp_path, donor, kind), donor)
    assert_loads(tmp_path, donor)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_one_file_is_read(name: str, donor: nn.Module, tmp_path: Path) -> None:
    weights = dict(donor.state_dict())
    save_file(weights, tmp_path / name) if name.endswith("s") else torch.save(weights, tmp_path / name)
    assert_loads(tmp_path, donor)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_missing_shard_is_named(kind: str, donor: nn.Module, tmp_path: Path) -> None:
    shard(tmp_path, donor, kind)
    (gone,) = tmp_path.glob("*-00002-of-00002.*")
    gone.unlink()
    assert f"name a shard that is not there ({gone})" in refusal(tiny(), tmp_path)


def test_a_shard_without_a_tensor_of_the_index_is_named(donor: nn.Module, tmp_path: Path) -> None:
    shard(tmp_path, donor, "safetensors")
    (first,) = tmp_path.glob("*-00001-of-00002.*")
    save_file({"norm.weight": torch.ones(64)}, first)
    message = refusal(tiny(), tmp_path)
    assert f"say that {first} holds tensors that it lacks, 9 (cls_embedding.embedding_table.weight, " in message


def test_one_shard_alone_is_refused(donor: nn.Module, tmp_path: Path) -> None:
    shard(tmp_path, donor, "safetensors")
    message = refusal(tiny(), tmp_path / "model-00001-of-00002.safetensors")
    assert "are one of 2 shards: point policy.checkpoint at the folder of all of them" in message


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../a.pt"}}']
)
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "are no index of shards, with a weight_map (" in refusal(tiny(), tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
        assert "it is a pointer of Git LFS and not the file itself" in refusal(tiny(), tmp_path / name)


def loading_refusal(path: Path, model: nn.Module, what: str = "policy") -> str:
    """What loading says; `check` does not read the numbers."""
    check_weights(model, path, what=what)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path, what=what)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_number_that_is_not_finite_is_refused_with_its_tensor(
    number: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in tiny().state_dict().items()}
    weights["output.weight"][3, 5] = number
    for name in ("weights.pt", "weights.safetensors"):
        path = tmp_path / name
        torch.save({"model": weights}, path) if name.endswith("pt") else save_file(weights, path)
        message = loading_refusal(path, tiny())
        assert message == (
            f"The policy weights {path} hold NaN or infinity in 1 (output.weight): get a sound copy, or point "
            "policy.checkpoint at another file."
        )


def test_a_tokenizer_with_nan_is_refused(tmp_path: Path) -> None:
    weights = small_tokenizer().state_dict()
    weights["quantize.embedding.weight"][0] = torch.nan
    torch.save({"model": weights}, tmp_path / "vq.pt")
    message = loading_refusal(tmp_path / "vq.pt", small_tokenizer(), what="tokenizer")
    assert "hold NaN or infinity in 1 (quantize.embedding.weight)" in message
    assert "tokenizer.checkpoint" in message


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    weights = dict(tiny().state_dict())
    weights["output.weight"] = torch.ones_like(weights["output.weight"], dtype=torch.int8)
    save_file(weights, tmp_path / "int8.safetensors")
    message = loading_refusal(tmp_path / "int8.safetensors", tiny())
    assert "are quantized, 1 (output.weight is int8)" in message
