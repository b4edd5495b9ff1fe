"""Adapters in a policy and in files: nothing changes at zero, and `peft` computes and stores the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import CheckpointError, RecipeError
from common.models.adapter_files import ADAPTERS, CONFIG, read_adapters, read_base
from common.models.families import PolicyModule
from common.models.loading import load_policy
from common.models.lora import trained_tensors
from deploy.runs.final_weights import save_final

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"learner.lora": {"rank": 3, "alpha": 5}}
CONTEXT, CONDITION = torch.arange(2 * 63).reshape(2, 63) % 20, {"label": torch.tensor([3, 7])}


@pytest.fixture
def recipe(small_run: Callable[..., Recipe]) -> Recipe:
    return small_run("run", LORA)


def logits(policy: nn.Module) -> Tensor:
    with torch.no_grad():
        return policy(CONDITION, CONTEXT)


def trained(recipe: Recipe) -> PolicyModule:
    """With adapters that say something."""
    policy = load_policy(recipe, CPU)
    torch.manual_seed(1)
    for tensor in trained_tensors(policy).values():
        nn.init.normal_(tensor, std=0.2)
    return policy


def written(policy: PolicyModule, recipe: Recipe, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_final(policy, recipe, folder)
    return folder


def base(recipe: Recipe) -> PolicyModule:
    return load_policy(with_changes(recipe, {"learner.lora": None}), CPU)


def test_adapters_at_zero_give_the_base_s_logits_exactly_and_others_give_others(recipe: Recipe) -> None:
    assert logits(load_policy(recipe, CPU)).equal(logits(base(recipe)))
    assert not torch.allclose(logits(trained(recipe)), logits(base(recipe)), atol=0.1)


def test_only_adapters_train_and_the_base_keeps_its_names(recipe: Recipe) -> None:
    policy = load_policy(recipe, CPU)
    training = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert training == set(trained_tensors(policy))
    assert len(training) == 2 * 2 * 5  # A and B, of two blocks with five layers each
    assert policy.state_dict().keys() - training == base(recipe).state_dict().keys()
    shapes = {name: tuple(tensor.shape) for name, tensor in trained_tensors(policy).items()}
    assert shapes["layers.1.attention.wqkv.lora_A.weight"] == (3, 16)
    assert shapes["layers.1.attention.wqkv.lora_B.weight"] == (48, 3)


def test_every_process_begins_with_the_same_adapters_by_the_run_s_seed(recipe: Recipe) -> None:
    def first(recipe: Recipe) -> Tensor:
        torch.manual_seed(torch.seed())
        return trained_tensors(load_policy(recipe, CPU))["layers.0.attention.wo.lora_A.weight"]

    assert first(recipe).equal(first(recipe))
    assert not first(recipe).equal(first(with_changes(recipe, {"seed": 1})))
    assert 0.2 < first(recipe).abs().max() <= 0.25  # 1 / √16 inputs


@pytest.mark.parametrize(
    ("targets", "count"), [(["wo"], 2), (["wqkv", "layers.1.feed_forward.w2"], 3), (["output"], 1)]
)
def test_targets_are_the_last_parts_of_names(targets: list[str], count: int, recipe: Recipe) -> None:
    policy = load_policy(with_changes(recipe, {"learner.lora.targets": targets}), CPU)
    assert len(trained_tensors(policy)) == 2 * count


def test_unknown_targets_are_refused_with_those_that_there_are(recipe: Recipe) -> None:
    with pytest.raises(RecipeError) as caught:
        load_policy(with_changes(recipe, {"learner.lora.targets": ["wo", "q_proj", "norm"]}), CPU)
    assert str(caught.value) == (
        "learner.lora.targets names q_proj, norm, and no linear layer of the policy is called that: name some of "
        "wqkv, wo, w1, w3, w2, output, or leave it empty for all of the transformer blocks"
    )


def test_dropout_is_refused_with_the_reason(recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match=r"no longer be the one that sampled.*lora\.dropout=0"):
        with_changes(recipe, {"learner.lora.dropout": 0.1})


def test_merged_equals_adapted(recipe: Recipe, tmp_path: Path) -> None:
    policy = trained(recipe)
    adapters = read_adapters(written(policy, recipe, tmp_path / "run") / ADAPTERS)
    merged = base(recipe)
    merged.load_state_dict(adapters.merged_into(read_base(recipe.policy.checkpoint), keep_dtype=True))
    torch.testing.assert_close(logits(merged), logits(policy), rtol=1e-5, atol=1e-5)


def test_a_run_s_adapters_are_its_checkpoint_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    policy = trained(recipe)
    folder = written(policy, recipe, tmp_path / "run")
    for other in (recipe, with_changes(recipe, {"learner.lora": None})):  # whoever samples need not train adapters
        assert logits(load_policy(other, CPU, str(folder))).equal(logits(policy))
    with pytest.raises(CheckpointError, match=r"holds adapters alone: merge them into their base by `convert"):
        load_policy(with_changes(recipe, {"policy.checkpoint": str(folder)}), CPU)


def test_adapters_beside_another_base_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    folder = written(trained(recipe), recipe, tmp_path / "run")
    weights = load_file(recipe.policy.checkpoint)
    weights["norm.weight"][3] += 1e-3
    save_file(weights, tmp_path / "other.safetensors")
    other = with_changes(recipe, {"policy.checkpoint": str(tmp_path / "other.safetensors")})
    with pytest.raises(CheckpointError, match=r"trained beside .*policy\.safetensors \(sha256 .* other weights"):
        load_policy(other, CPU, str(folder))


def test_peft_loads_what_is_written_and_computes_the_same(recipe: Recipe, tmp_path: Path) -> None:
    policy = trained(recipe)
    theirs = PeftModel.from_pretrained(base(recipe), written(policy, recipe, tmp_path / "run"))
    assert logits(theirs).equal(logits(policy))


def test_what_peft_writes_is_sampled_from_and_trained_in_the_same_layers(recipe: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(2)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["wqkv", "w2"], init_lora_weights=False)
    theirs = get_peft_model(base(recipe), config)
    theirs.save_pretrained(tmp_path / "peft")
    ours = load_policy(recipe, CPU, str(tmp_path / "peft"))
    assert logits(ours).equal(logits(theirs.eval()))
    assert len(trained_tensors(ours)) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"use_dora": True},
            "are not those of linear layers alone, 1 (use_dora True): merge them into their base",
        ),
        ({"peft_type": "LOHA"}, "are not those of linear layers alone, 1 (peft_type LOHA)"),
        ({"rank_pattern": {"wo": 8}}, "are not those of linear layers alone, 1 (rank_pattern {'wo': 8})"),
        ({"r": 2}, "do not fit the policy that the recipe describes, 20 ("),
        ({"r": "three"}, "cannot be read, with adapter_config.json beside them (ValidationError"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    changes: dict[str, Any], said: str, recipe: Recipe, tmp_path: Path
) -> None:
    folder = written(trained(recipe), recipe, tmp_path / "run")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError) as caught:
        load_policy(recipe, CPU, str(folder))
    assert said in str(caught.value)


BFLOAT16 = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16"}


def test_under_bfloat16_the_frozen_layers_are_bfloat16_and_nothing_else_changes(recipe: Recipe) -> None:
    narrow = load_policy(with_changes(recipe, BFLOAT16), CPU)
    dtypes = {name: parameter.dtype for name, parameter in narrow.named_parameters()}
    assert dtypes["layers.0.attention.wqkv.weight"] == dtypes["output.weight"] == torch.bfloat16
    assert dtypes["layers.0.attention.wqkv.lora_A.weight"] == dtypes["norm.weight"] == torch.float32
    wide = load_policy(recipe, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert logits(narrow).equal(logits(wide))


def test_compiled_and_recomputed_blocks_give_the_same_logits_and_gradients(recipe: Recipe) -> None:
    def gradients(policy: PolicyModule) -> list[Tensor]:
        policy(CONDITION, CONTEXT).square().mean().backward()
        return [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]

    plain, compiled, recomputed = trained(recipe), trained(recipe), trained(recipe)
    compiled.compile_blocks(backend="eager")
    recomputed.activation_checkpointing = True
    expected = gradients(plain)
    assert len(expected) == 20
    assert all(map(torch.equal, expected, gradients(compiled)))
    assert all(map(torch.equal, expected, gradients(recomputed)))
