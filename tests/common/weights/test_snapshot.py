"""Weights in one buffer: they come back as they were, and their digest tells them apart."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.weights.snapshot import (
    ALIGNMENT,
    WeightsBuffer,
    linear_parameters,
    load_snapshot,
    make_bfloat16,
    snapshot_of,
    take_snapshot,
    tensors_of,
    weights_sha256,
)


class Mixed(nn.Module):
    """Parameters of two types and a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.fine = nn.Parameter(torch.randn(3, 2, generator=draws))
        self.rough = nn.Parameter(torch.randn(5, generator=draws).bfloat16())
        self.register_buffer("count", torch.tensor([seed]))


class Words(nn.Module):
    """An embedding whose table is also the head, between them a linear layer with a bias and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.inner = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.inner(self.table(ids))))


def sha(module: nn.Module) -> str:
    return weights_sha256(module.state_dict())


def test_weights_of_every_type_come_back_bit_for_bit() -> None:
    model, other = Mixed(1), Mixed(2)
    snapshot = take_snapshot(model, version=3)
    assert snapshot.version == 3
    assert [(entry.name, entry.dtype, entry.shape, entry.start) for entry in snapshot.entries] == [
        ("fine", "float32", (3, 2), 0),
        ("rough", "bfloat16", (5,), ALIGNMENT),
        ("count", "int64", (1,), 2 * ALIGNMENT),
    ]
    assert snapshot.num_bytes == 2 * ALIGNMENT + 8
    load_snapshot(other, snapshot)
    for name, value in model.state_dict().items():
        assert other.state_dict()[name].equal(value)
        assert other.state_dict()[name].dtype == value.dtype


def test_a_model_without_a_number_in_it_has_a_snapshot_too() -> None:
    snapshot = snapshot_of({"nothing": torch.zeros(0, 3), "one": torch.tensor(2.5)}, 0)
    assert {name: tensor.shape for name, tensor in tensors_of(snapshot).items()} == {"nothing": (0, 3), "one": ()}
    assert tensors_of(snapshot)["one"] == 2.5


def test_a_snapshot_does_not_move_with_the_policy() -> None:
    model = Mixed(1)
    snapshot = take_snapshot(model, 0)
    with torch.no_grad():
        model.fine.add_(1)
    assert weights_sha256(tensors_of(snapshot)) == sha(Mixed(1))


def test_a_read_only_buffer_loads_as_the_object_store_gives_it() -> None:
    model, other = Mixed(1), Mixed(2)
    snapshot = take_snapshot(model, 0)
    snapshot.buffer.setflags(write=False)
    load_snapshot(other, snapshot)
    assert sha(other) == sha(model)
    with torch.no_grad():
        other.fine.add_(1)  # its own memory


def test_loading_keeps_the_parameters_that_an_optimizer_holds() -> None:
    model = Mixed(2)
    parameter = model.fine
    load_snapshot(model, take_snapshot(Mixed(1), 0))
    assert model.fine is parameter
    assert parameter.equal(Mixed(1).fine)


def test_a_snapshot_of_another_model_is_refused_with_the_names_that_differ() -> None:
    snapshot = take_snapshot(Mixed(1), 0)
    short = replace(snapshot, entries=tuple(entry for entry in snapshot.entries if entry.name != "rough"))
    with pytest.raises(ValueError, match=r"snapshot and policy differ in \['rough'\]"):
        load_snapshot(Mixed(1), short)


def test_a_buffer_serves_one_version_after_the_other_in_the_same_memory() -> None:
    buffer = WeightsBuffer(Mixed(1).state_dict())
    taken = []
    for seed in (1, 2):
        buffer.fill(Mixed(seed).state_dict())
        snapshot = buffer.snapshot(version=seed)
        taken.append((snapshot.version, weights_sha256(tensors_of(pickle.loads(pickle.dumps(snapshot))))))
        assert snapshot.buffer is buffer.snapshot(9).buffer
    assert taken == [(1, sha(Mixed(1))), (2, sha(Mixed(2)))]


def test_only_what_linear_layers_alone_use_is_cast_by_autocast_anyway() -> None:
    assert linear_parameters(Words()) == {"inner.weight", "inner.bias"}


def test_narrow_weights_give_the_same_under_autocast_bit_for_bit_and_half_the_bytes() -> None:
    torch.manual_seed(0)
    model, actor, ids = Words(), Words(), torch.arange(7)
    names = linear_parameters(model)
    make_bfloat16(actor, names)
    assert {name for name, value in actor.named_parameters() if value.dtype == torch.bfloat16} == names
    snapshot = take_snapshot(model, 1, names)
    assert [entry.dtype for entry in snapshot.entries if entry.name in names] == ["bfloat16"] * 2
    load_snapshot(actor, snapshot)
    with torch.autocast("cpu", torch.bfloat16):
        assert actor(ids).equal(model(ids))
    assert not F.linear(torch.ones(4), actor.inner.weight.float()).equal(
        F.linear(torch.ones(4), model.inner.weight)
    )


def test_the_digest_depends_on_weights_and_not_on_their_order() -> None:
    weights = Mixed(1).state_dict()
    assert weights_sha256(dict(reversed(weights.items()))) == weights_sha256(weights)
    assert len(weights_sha256(weights)) == 64


def test_the_digest_is_that_of_earlier_runs() -> None:
    weights = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4.0).bfloat16()}
    assert weights_sha256(weights) == "907cfcc4c58385619acb868e9f8f3f61659ea239a3c8fee0d810d73061bf3263"


def test_the_digest_changes_with_one_bit_a_name_a_type_or_a_shape() -> None:
    tensor = torch.arange(6.0)
    nearby = [
        {"weight": tensor},
        {"weight": tensor.nextafter(torch.tensor(9.0))},
        {"bias": tensor},
        {"weight": tensor.view(torch.int32)},
        {"weight": tensor.reshape(2, 3)},
    ]
    assert len({weights_sha256(weights) for weights in nearby}) == len(nearby)


def test_the_digest_is_of_values_and_not_of_their_layout_in_memory() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert weights_sha256({"w": tensor}) == weights_sha256({"w": tensor.T.contiguous().T})
