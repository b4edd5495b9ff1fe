"""Weights of both layouts: the official key lists, and what is said when a file does not do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import CheckpointError
from common.models.families import build_policy, build_tokenizer
from common.models.janus.published_files import TOKENIZER as PREFIX
from common.models.janus.published_files import Layout, layout_of, own_name, part_of, published_name
from common.models.janus.spec import published
from common.models.weights_files import check_weights, load_weights, misfit
from tests.common.models.janus.golden import DATA, HF, ORIGINAL, POLICY, policy, tokenizer

LISTS = {
    name: entry
    for file in ("official_state_dicts.json", "official_state_dicts_7b.json")
    for name, entry in json.loads((DATA / file).read_text()).items()
}
PUBLISHED = {name.rpartition("-")[2].lower(): sections for name, *sections in published()}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_the_official_lists_are_the_models_on_the_meta_device(name: str) -> None:
    entry = LISTS[name]
    shapes = {key: tuple(shape) for key, shape in entry["state_dict"].items()}
    policy_spec, tokenizer_spec = PUBLISHED[name.split("_")[2]]
    with torch.device("meta"):
        models = (
            build_policy(policy_spec, codebook_size=16384, grid_size=24),
            build_tokenizer(tokenizer_spec, image_size=384),
        )
    for without in ([], [key for key in entry.get("may_be_absent", [])]):
        there = {key: shape for key, shape in shapes.items() if key not in without}
        for model in models:
            assert not misfit(model, part_of(there, model.state_dict()))
    numbers = sum(weight.numel() for model in models for weight in model.parameters())
    assert numbers == entry["parameters_of_generation"]


@pytest.mark.parametrize("size", ["1b", "7b"])
def test_names_translate_both_ways(size: str) -> None:
    hf, original = LISTS[f"janus_pro_{size}_hf"], LISTS[f"janus_pro_{size}_original"]
    needed = tuple(original["generation_prefixes"])
    ours = [key for key in original["state_dict"] if key.startswith(needed) and key not in original["ignored"]]
    theirs = [key for key in hf["state_dict"] if key.startswith(tuple(hf["generation_prefixes"]))]
    assert {published_name(key, "transformers") for key in ours} == set(theirs)
    assert {own_name(key, "transformers") for key in theirs} == set(ours)
    assert len(ours) == len(theirs) > 500
    assert layout_of(hf["state_dict"]) == "transformers"
    assert layout_of(original["state_dict"]) == "deepseek"


def stored(layout: Layout) -> dict[str, Tensor]:
    return load_file(HF) if layout == "transformers" else torch.load(ORIGINAL, weights_only=True)


def save(weights: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".bin":
        torch.save(weights, path)
    else:
        save_file(weights, path, {"format": "pt"})
    return path


def save_sharded(weights: dict[str, Tensor], folder: Path, stem: str, suffix: str, num_shards: int) -> Path:
    names = list(weights)
    places = {}
    for number in range(num_shards):
        file = f"{stem}-{number + 1:05d}-of-{num_shards:05d}{suffix}"
        own = names[number::num_shards]
        save({name: weights[name].clone() for name in own}, folder / file)
        places |= dict.fromkeys(own, file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("num_shards", [2, 5])
@pytest.mark.parametrize(
    ("layout", "stem", "suffix"),
    [("deepseek", "pytorch_model", ".bin"), ("transformers", "model", ".safetensors")],
)
def test_shards_are_read_by_their_index_and_by_their_folder(
    layout: Layout, stem: str, suffix: str, num_shards: int, tmp_path: Path
) -> None:
    index = save_sharded(stored(layout), tmp_path, stem, suffix, num_shards)
    whole = {**policy().state_dict(), **tokenizer().state_dict()}
    for path in (index, tmp_path):
        for name, tensor in {**policy(path).state_dict(), **tokenizer(path).state_dict()}.items():
            assert tensor.equal(whole[name]), name


def test_transformers_file_with_the_tied_output_is_read_too(tmp_path: Path) -> None:
    weights = stored("transformers")
    weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"].clone()
    path = save(weights, tmp_path / "model.safetensors")
    for name, tensor in policy(path).state_dict().items():
        assert tensor.equal(policy().state_dict()[name]), name
    assert tokenizer(path).encoder.conv_in.weight.equal(tokenizer().encoder.conv_in.weight)


def test_the_generator_alone_is_a_file_of_ours(tmp_path: Path) -> None:
    path = save(policy().state_dict(), tmp_path / "policy.safetensors")
    assert policy(path).gen_embed.weight.equal(policy().gen_embed.weight)


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def renamed(old: str, new: str) -> Change:
    return lambda weights: {name.replace(old, new): tensor for name, tensor in weights.items()}


def without(part: str) -> Change:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def resized(part: str) -> Change:
    return lambda weights: {n: each[:-1].clone() if part in n else each for n, each in weights.items()}


def mixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    both = ("gen_embed.weight", "model.generation_embeddings.weight")
    return {name: torch.zeros(64, 8) for name in both} | weights


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
@pytest.mark.parametrize(
    ("change", "what", "message"),
    [
        (without("layers.1."), "policy", "missing keys: 9 (language_model.model.layers.1."),
        (
            renamed("q_proj", "query"),
            "policy",
            "unexpected keys: 2 (language_model.model.layers.0.self_attn.query",
        ),
        (resized("embed_tokens"), "policy", "embed_tokens.weight is [299, 64] and must be [300, 64]"),
        (mixed, "policy", "mix the names of two layouts, gen_"),
        (without("post_quant_conv"), "tokenizer", "missing keys: 2 (post_quant_conv."),
        (resized("quantize.embedding"), "tokenizer", "quantize.embedding.weight is [63, 8] and must be [64, 8]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong(
    layout: Layout, change: Change, what: str, message: str, tmp_path: Path
) -> None:
    suffix = ".bin" if layout == "deepseek" else ".safetensors"
    path = save(change(stored(layout)), tmp_path / f"model{suffix}")
    model = policy() if what == "policy" else tokenizer()
    for door in (check_weights, load_weights):
        with pytest.raises(CheckpointError) as refused:
            door(model, path, what=what)
        assert message in str(refused.value)


@pytest.mark.parametrize("source", [HF, ORIGINAL])
def test_a_truncated_file_is_refused(source: Path, tmp_path: Path) -> None:
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(policy(), path, what="policy")


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    spec = POLICY.model_copy(update={"size": POLICY.network.model_copy(update={"num_layers": 3})})
    with pytest.raises(CheckpointError, match=r"missing keys: 9 \(language_model\.model\.layers\.2\."):
        policy(ORIGINAL, spec)
    assert any(name.startswith(PREFIX) for name in stored("deepseek"))
