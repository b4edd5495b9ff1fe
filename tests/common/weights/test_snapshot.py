"""Weights as numpy arrays: they come back as they were, and their digest tells them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from common.weights.snapshot import load_snapshot, take_snapshot, weights_sha256


class Mixed(nn.Module):
    """Parameters of two types and a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.fine = nn.Parameter(torch.randn(3, 2, generator=draws))
        self.rough = nn.Parameter(torch.randn(5, generator=draws).bfloat16())
        self.register_buffer("count", torch.tensor([seed]))


def sha(module: nn.Module) -> str:
    return weights_sha256(take_snapshot(module, 0))


def test_weights_of_every_type_come_back_bit_for_bit() -> None:
    model, other = Mixed(1), Mixed(2)
    snapshot = take_snapshot(model, version=3)
    assert snapshot.version == 3
    assert snapshot.bfloat16_names == {"rough"}
    assert snapshot.arrays["rough"].dtype == np.int16
    assert snapshot.num_bytes == 6 * 4 + 5 * 2 + 8
    load_snapshot(other, snapshot)
    for name, value in model.state_dict().items():
        assert other.state_dict()[name].equal(value)
        assert other.state_dict()[name].dtype == value.dtype


def test_a_snapshot_does_not_move_with_the_policy() -> None:
    model = Mixed(1)
    snapshot = take_snapshot(model, 0)
    before = weights_sha256(snapshot)
    with torch.no_grad():
        model.fine.add_(1)
    assert weights_sha256(snapshot) == before


def test_read_only_arrays_load_as_the_object_store_gives_them() -> None:
    model, other = Mixed(1), Mixed(2)
    snapshot = take_snapshot(model, 0)
    for array in snapshot.arrays.values():
        array.setflags(write=False)
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
    short = replace(snapshot, arrays={name: array for name, array in snapshot.arrays.items() if name != "rough"})
    with pytest.raises(ValueError, match=r"snapshot and policy differ in \['rough'\]"):
        load_snapshot(Mixed(1), short)


def test_the_digest_depends_on_weights_and_not_on_versions_or_order() -> None:
    snapshot = take_snapshot(Mixed(1), version=1)
    later = replace(snapshot, version=2, arrays=dict(sorted(snapshot.arrays.items(), reverse=True)))
    assert weights_sha256(later) == weights_sha256(snapshot)
    assert len(weights_sha256(snapshot)) == 64


def test_the_digest_changes_with_one_bit_a_name_a_type_or_a_shape() -> None:
    array = np.arange(6, dtype=np.float32)
    nearby = [
        {"weight": array},
        {"weight": np.nextafter(array, np.float32(9))},
        {"bias": array},
        {"weight": array.view(np.int32)},
        {"weight": array.reshape(2, 3)},
    ]
    snapshot = take_snapshot(Mixed(1), 0)
    assert len({weights_sha256(replace(snapshot, arrays=arrays)) for arrays in nearby}) == len(nearby)


def test_the_digest_is_of_values_and_not_of_their_layout_in_memory() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    snapshot = take_snapshot(Mixed(1), 0)
    digests = {weights_sha256(replace(snapshot, arrays={"w": each})) for each in (array, np.asfortranarray(array))}
    assert len(digests) == 1
