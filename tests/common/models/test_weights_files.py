"""Weights files: both published layouts, the official key sets, and what is said when a file does not do."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.errors import CheckpointError
from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec, TokenizerSize, TransformerSize
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.weights_files import LAYOUTS, check_weights, load_weights, save_published, save_weights
from common.paths import CHECKOUT
from tests.common.test_atomic import no_file_above

DATA = CHECKOUT / "tests" / "data" / "llamagen"
OFFICIAL = json.loads((DATA / "official_state_dicts.json").read_text())


def tiny(num_layers: int = 2, dim: int = 64) -> LlamaGenTransformer:
    size = TransformerSize(num_layers=num_layers, num_heads=4, dim=dim, ffn_multiple=32)
    spec = LlamaGenPolicySpec(size=size, num_classes=10, checkpoint="")
    return LlamaGenTransformer(spec, codebook_size=64, grid_size=4)


def small_tokenizer() -> VQTokenizer:
    size = TokenizerSize(channels=32, channel_multipliers=(1, 2), num_res_blocks=1, codebook_size=16)
    return VQTokenizer(LlamaGenTokenizerSpec(size=size, checkpoint=""), image_size=8)


def refusal(module: nn.Module, path: Path, obtain_from: str = "") -> str:
    """What `check_weights` says, which must be what `load_weights` says."""
    with pytest.raises(CheckpointError) as checked:
        check_weights(module, path, what="policy", obtain_from=obtain_from)
    with pytest.raises(CheckpointError) as loaded:
        load_weights(module, path, what="policy", obtain_from=obtain_from)
    assert str(checked.value) == str(loaded.value)
    assert "\n" not in str(loaded.value)
    return str(loaded.value)


def test_the_published_models_are_these_eight() -> None:
    policies = {"c2i_B", "c2i_L", "c2i_XL", "c2i_XXL", "c2i_3B", "t2i_XL"}
    assert OFFICIAL.keys() == policies | {"vq_ds16", "vq_ds8"}


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_keys_shapes_and_parameter_counts_are_the_published_ones(name: str) -> None:
    model: nn.Module
    kind, size = name.split("_")
    with torch.device("meta"):
        if kind == "vq":
            size = size.replace("ds", "vq")
            tokenizer_spec = LlamaGenTokenizerSpec.model_validate({"size": size, "checkpoint": ""})
            model = VQTokenizer(tokenizer_spec, image_size=256)
        else:
            conditioning = {"c2i": "class", "t2i": "text"}[kind]
            policy_spec = LlamaGenPolicySpec.model_validate(
                {"size": size, "conditioning": conditioning, "checkpoint": ""}
            )
            model = LlamaGenTransformer(policy_spec, codebook_size=16384, grid_size=24)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == OFFICIAL[name]["state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == OFFICIAL[name]["parameters"]


@pytest.mark.parametrize("name", ["llamagen_c2i_tiny.pt", "llamagen_c2i_tiny_fsdp.pt"])
def test_both_published_layouts_load(name: str) -> None:
    model = tiny()
    load_weights(model, DATA / name, what="policy")
    content = torch.load(DATA / name, weights_only=True)
    for key, stored in content.get("model", content).items():
        assert model.state_dict()[key].equal(stored)


def test_a_model_on_the_meta_device_is_filled_and_can_be_trained() -> None:
    with torch.device("meta"):
        model = tiny()
    load_weights(model, DATA / "llamagen_c2i_tiny.pt", what="policy")
    expected = load_file(DATA / "llamagen_c2i_tiny_expected.safetensors")
    logits = model({"label": expected["labels"]}, expected["noisy_context"])
    torch.testing.assert_close(logits, expected["logits_noisy"], rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert model.output.weight.grad is not None


def test_checking_leaves_a_model_on_the_meta_device_as_it_is() -> None:
    with torch.device("meta"):
        model = tiny()
    check_weights(model, DATA / "llamagen_c2i_tiny.pt", what="policy")
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_training_file_with_arguments_loads_from_either_pickle_format(tmp_path: Path) -> None:
    donor = tiny()
    content = {"model": donor.state_dict(), "args": argparse.Namespace(lr=1e-4), "steps": 7}
    for is_zip in (True, False):
        torch.save(content, tmp_path / "training.pt", _use_new_zipfile_serialization=is_zip)
        model = tiny()
        load_weights(model, tmp_path / "training.pt", what="policy")
        assert model.tok_embeddings.weight.equal(donor.tok_embeddings.weight)


def test_stored_bfloat16_is_cast_to_the_dtype_of_the_model(tmp_path: Path) -> None:
    donor, model = tiny(), tiny()
    save_weights(donor.state_dict(), tmp_path / "policy.safetensors", dtype=torch.bfloat16)
    load_weights(model, tmp_path / "policy.safetensors", what="policy")
    assert model.norm.weight.dtype == torch.float32
    assert model.tok_embeddings.weight.equal(donor.tok_embeddings.weight.bfloat16().float())


def test_a_checkpoint_folder_of_a_run_loads(tmp_path: Path) -> None:
    donor, model = tiny(), tiny()
    save_weights(donor.state_dict(), tmp_path / "step-000100" / "policy.safetensors")
    load_weights(model, tmp_path / "step-000100", what="policy")
    assert model.tok_embeddings.weight.equal(donor.tok_embeddings.weight)


def test_a_legacy_rotary_table_is_ignored(tmp_path: Path) -> None:
    save_file({**tiny().state_dict(), "freqs_cis": torch.zeros(17, 8, 2)}, tmp_path / "old.safetensors")
    check_weights(tiny(), tmp_path / "old.safetensors", what="policy")
    load_weights(tiny(), tmp_path / "old.safetensors", what="policy")


def test_a_tokenizer_without_its_usage_statistic_loads(tmp_path: Path) -> None:
    donor = small_tokenizer()
    weights = donor.state_dict()
    del weights["quantize.codebook_used"]
    save_weights(weights, tmp_path / "vq.safetensors")
    with torch.device("meta"):
        on_meta = small_tokenizer()
    for model in (small_tokenizer(), on_meta):
        check_weights(model, tmp_path / "vq.safetensors", what="tokenizer")
        load_weights(model, tmp_path / "vq.safetensors", what="tokenizer")
        assert model.quantize.embedding.weight.equal(donor.quantize.embedding.weight)
        assert model.quantize.codebook_used.sum() == 0


def test_saving_leaves_one_file_and_casts_floating_point_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    transposed = torch.arange(6.0).reshape(2, 3).T
    save_weights({"weight": transposed, "steps": torch.tensor([7])}, path, dtype=torch.float16)
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.safetensors"]
    stored = load_file(path)
    assert stored["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert stored["weight"].dtype == torch.float16
    assert stored["steps"].dtype == torch.int64


def test_whoever_may_read_other_new_files_may_read_weights(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_weights({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    save_published({"weight": torch.ones(2)}, tmp_path / "weights.pt", "model")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_file_is_written_in_its_layout_and_loads(layout: str, tmp_path: Path) -> None:
    donor, model = tiny(), tiny()
    save_published(donor.state_dict(), tmp_path / "new" / "weights.pt", layout)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["weights.pt"]
    content = torch.load(tmp_path / "new" / "weights.pt", weights_only=True)
    assert set(content) == (set(donor.state_dict()) if layout == "bare" else {layout})
    load_weights(model, tmp_path / "new" / "weights.pt", what="policy")
    assert model.tok_embeddings.weight.equal(donor.tok_embeddings.weight)


def test_parts_of_a_larger_tensor_are_stored_alone(tmp_path: Path) -> None:
    whole = torch.arange(100_000.0)
    parts = {"one": whole[:10], "same": whole[:10], "all": whole.view(2, -1), "all again": whole}
    save_published(parts, tmp_path / "parts.pt", "bare")
    save_weights(parts, tmp_path / "parts.safetensors")
    for stored in (torch.load(tmp_path / "parts.pt"), load_file(tmp_path / "parts.safetensors")):
        assert {name: tensor.untyped_storage().nbytes() for name, tensor in stored.items()} == {
            "one": 40,
            "same": 40,
            "all": 400_000,
            "all again": 400_000,
        }
        assert all(stored[name].equal(part) for name, part in parts.items())


@pytest.mark.parametrize("save", [save_weights, lambda weights, path: save_published(weights, path, "model")])
def test_a_full_disk_is_an_error_that_names_the_file(save: Callable[..., None], tmp_path: Path) -> None:
    with no_file_above(10_000), pytest.raises(OSError, match=r"File too large|No space left") as caught:
        save({"weight": torch.ones(100_000)}, tmp_path / "weights.pt")
    assert caught.value.filename == str(tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_said_to_be_missing_and_where_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "gone.pt"
    assert refusal(tiny(), path, obtain_from="https://example.org/gone.pt") == (
        f"There is no policy weights file {path}: get it from https://example.org/gone.pt, or point "
        "policy.checkpoint at a file that exists."
    )


def test_a_file_of_another_size_is_refused_with_what_it_holds_and_what_is_needed() -> None:
    message = refusal(tiny(num_layers=3, dim=128), DATA / "llamagen_c2i_tiny.pt")
    assert "which has 25 tensors" in message
    assert (
        "missing keys: 7 (layers.2.attention.wqkv.weight, layers.2.attention.wo.weight, "
        "layers.2.feed_forward.w1.weight, …)" in message
    )
    assert "wrong shapes: 18 (cls_embedding.embedding_table.weight is [11, 64] and must be [11, 128]" in message
    assert "make the settings under policy those of the file" in message


def test_a_text_conditional_file_is_refused_by_a_class_conditional_model() -> None:
    message = refusal(tiny(), DATA / "llamagen_t2i_tiny.pt")
    assert "missing keys: 1 (cls_embedding.embedding_table.weight)" in message
    assert "unexpected keys: 3 (cls_embedding.uncond_embedding, " in message


@pytest.mark.parametrize("content", [{"steps": 3}, [1, 2], {"model": {"steps": 3}}, {}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert "and no state dict: point policy.checkpoint at" in refusal(tiny(), tmp_path / "other.pt")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": tiny().state_dict(), "where": Path("home")}, tmp_path / "code.pt")
    assert "it is damaged, or holds Python objects other than tensors" in refusal(tiny(), tmp_path / "code.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("length", [0, 11, 200_000])
def test_a_truncated_file_is_refused_with_its_size(suffix: str, length: int, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pt":
        torch.save(tiny().state_dict(), whole)
    else:
        save_weights(tiny().state_dict(), whole)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[:length])
    message = refusal(tiny(), path)
    assert message.startswith(f"The policy weights {path} ({length} bytes) cannot be read (")
    assert message.endswith("a complete copy, or point policy.checkpoint at another file.")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    assert f"The folder {tmp_path} holds no policy.safetensors" in refusal(tiny(), tmp_path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"weights")
    message = refusal(tiny(), tmp_path / "policy.onnx")
    assert "are not named .safetensors, .pt, .pth, .bin, .ckpt: point policy.checkpoint at" in message
