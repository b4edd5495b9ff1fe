"""A loaded policy computes as the recipe's `compute` says, for whoever loads it."""

from pathlib import Path

import pytest
import torch

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.models.families import PolicyModule
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.loading import load_policy, load_tokenizer
from tests.fake_cuda.gpu import fake_cuda


def load(tiny_recipe: Recipe, tiny_weights: Path, **compute: bool) -> PolicyModule:
    changes = {f"compute.{key}": value for key, value in compute.items()}
    checkpoint = {"policy.checkpoint": str(tiny_weights / "policy.safetensors")}
    return load_policy(with_changes(tiny_recipe, checkpoint | changes), torch.device("cpu"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[PolicyModule]:
    """The policies that were to be compiled."""
    policies: list[PolicyModule] = []
    monkeypatch.setattr(LlamaGenTransformer, "compile_blocks", lambda policy: policies.append(policy))
    return policies


def test_blocks_are_neither_recomputed_nor_compiled_unless_asked(
    tiny_recipe: Recipe, tiny_weights: Path, compiled: list[PolicyModule]
) -> None:
    assert not load(tiny_recipe, tiny_weights).activation_checkpointing
    assert compiled == []


def test_blocks_are_recomputed_where_the_recipe_asks_for_it(tiny_recipe: Recipe, tiny_weights: Path) -> None:
    assert load(tiny_recipe, tiny_weights, activation_checkpointing=True).activation_checkpointing


def test_blocks_are_compiled_where_the_recipe_asks_for_it(
    tiny_recipe: Recipe, tiny_weights: Path, compiled: list[PolicyModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.models.loading.require_compiler", lambda _: None)
    policy = load(tiny_recipe, tiny_weights, compile=True)
    assert compiled == [policy]


def test_without_a_compiler_a_recipe_that_compiles_is_refused(
    tiny_recipe: Recipe, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "gone++")
    with pytest.raises(ClusterError, match=r"compute\.compile is true"):
        load(tiny_recipe, tiny_weights, compile=True)


def test_the_tokenizer_is_channels_last_on_a_cpu_and_contiguous_on_a_gpu(
    tiny_recipe: Recipe, tiny_weights: Path
) -> None:
    recipe = with_changes(tiny_recipe, {"tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors")})

    def layouts(device: str) -> tuple[bool, bool]:
        weight = load_tokenizer(recipe, torch.device(device)).decoder.conv_in.weight
        return weight.is_contiguous(), weight.is_contiguous(memory_format=torch.channels_last)

    assert layouts("cpu") == (False, True)
    with fake_cuda():
        assert layouts("cuda") == (True, False)
