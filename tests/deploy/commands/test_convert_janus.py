"""`convert` of Janus-Pro: both layouts, whole and in shards, from each other and from a run's checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.models.weights_files import read_weights, save_weights
from deploy.__main__ import main
from tests.common.models.janus.golden import HF, ORIGINAL, RECIPE, policy

TARGETS = {
    "deepseek": "pytorch_model.bin",
    "deepseek shards": "pytorch_model.bin.index.json",
    "transformers": "model.safetensors",
    "transformers shards": "model.safetensors.index.json",
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))
    return str(path)


def published(name: str) -> tuple[Path, dict[str, Tensor]]:
    if name.startswith("deepseek"):
        return ORIGINAL, torch.load(ORIGINAL, weights_only=True)
    return HF, load_file(HF)


def written(target: Path) -> dict[str, Tensor]:
    """The tensors by the names in the files themselves."""
    if not target.name.endswith(".index.json"):
        return load_file(target) if target.suffix == ".safetensors" else torch.load(target, weights_only=True)
    places = json.loads(target.read_text())["weight_map"]
    assert len(set(places.values())) > 2
    found: dict[str, Tensor] = {}
    for shard in set(places.values()):
        tensors = written(target.parent / shard)
        assert set(tensors) == {name for name, place in places.items() if place == shard}
        found |= tensors
    return found


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.equal(theirs[name]), name


@pytest.mark.parametrize("over", sorted(TARGETS))
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_there_and_back_in_all_layouts_is_the_same_bit_for_bit(
    name: str, over: str, recipe: str, tmp_path: Path
) -> None:
    """From the published file to layout `over`, and from there to layout `name`."""
    source, weights = published(name)
    there, back = tmp_path / "there" / TARGETS[over], tmp_path / "back" / TARGETS[name]
    there.parent.mkdir()
    back.parent.mkdir()
    options = ["--recipe", recipe, "--shard-gb", "0.0005"]
    other = ["--original", str(published(over)[0])]
    assert main(["convert", str(source), str(there), *options, *other]) == 0
    assert main(["convert", str(there), str(back), *options, "--original", str(source)]) == 0
    assert_equal(written(there), published(over)[1])
    assert_equal(written(back), weights)


@pytest.mark.parametrize("name", ["deepseek", "transformers"])
def test_without_an_original_what_is_left_out_is_named(
    name: str, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = published("transformers" if name == "deepseek" else "deepseek")
    target = tmp_path / TARGETS[name]
    assert main(["convert", str(source), str(target), "--recipe", recipe]) == 0
    left_out = (
        "language_model.lm_head., vision_model., aligner." if name == "deepseek" else "vision_model., aligner."
    )
    assert f"left out: {left_out}\n" in capsys.readouterr().out
    ours, theirs = written(target), published(name)[1]
    assert 300 > len(theirs) - len(ours) > 0
    for key, tensor in ours.items():
        assert tensor.equal(theirs[key]), key


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_runs_checkpoint_is_completed_by_the_original(name: str, recipe: str, tmp_path: Path) -> None:
    model = policy()
    for weight in model.parameters():
        weight.data = (weight.data * 3).bfloat16().float()
    checkpoint = tmp_path / "step-000003"
    checkpoint.mkdir()
    save_weights(model.state_dict(), checkpoint / "policy.safetensors")
    target, (original, before) = tmp_path / TARGETS[name], published(name)
    words = ["convert", str(checkpoint), str(target), "--original", str(original), "--recipe", recipe]
    assert main([*words, "--dtype", "bfloat16", "--shard-gb", "0.0005"]) == 0
    after = written(target)
    assert after.keys() == before.keys()
    changed = {key for key, tensor in after.items() if not tensor.equal(before[key])}
    assert len(changed) == len([key for key, weight in model.state_dict().items() if weight.abs().sum()])
    trained = policy(target)
    for key, weight in model.state_dict().items():
        assert trained.state_dict()[key].equal(weight), key


def test_transformers_own_class_loads_what_was_trained(recipe: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for file in HF.parent.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = ["convert", str(ORIGINAL), str(tmp_path / "model.safetensors"), "--recipe", recipe]
    assert main([*words, "--original", str(HF)]) == 0
    model, loading = transformers.JanusForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    assert not loading["unexpected_keys"]
    assert not set(loading["missing_keys"]) - {"lm_head.weight"}
    assert model.model.generation_embeddings.weight.equal(policy().gen_embed.weight)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


def test_what_cannot_be_converted_is_refused_in_a_sentence(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert, target = ["convert", str(ORIGINAL)], str(tmp_path / "model.safetensors")
    assert "do not fit Janus-Pro-1B" in refusal([*convert, target], capsys)
    said = refusal([*convert, str(tmp_path / "model.pt"), "--recipe", recipe], capsys)
    assert "name TARGET .bin or .bin.index.json (deepseek)" in said
    said = refusal([*convert, target, "--layout", "deepseek", "--recipe", recipe], capsys)
    assert "--layout deepseek" in said
    said = refusal([*convert, target, "--original", str(ORIGINAL), "--recipe", recipe], capsys)
    assert "--original is in the layout deepseek, and TARGET is to be transformers" in said
    weights = load_file(HF)
    del weights["model.vqmodel.encoder.conv_in.weight"]
    save_file(weights, tmp_path / "broken.safetensors")
    words = ["convert", str(tmp_path / "broken.safetensors"), target, "--recipe", recipe]
    assert "missing keys: 1 (encoder.conv_in.weight)" in refusal(words, capsys)
    assert not Path(target).exists()
    assert len(read_weights(ORIGINAL, noun="", setting="")) > 100
