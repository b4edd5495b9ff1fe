"""What a recipe's `compute` section means in a process."""

import pytest
import torch

from common.config.service import ComputeSection
from common.device import autocast, prepare_device
from common.errors import ClusterError

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused_with_the_ways_out() -> None:
    assert prepare_device(ComputeSection()) == CPU
    with pytest.raises(ClusterError, match=r"compute\.device is cuda, but this process sees no GPU: give it one"):
        prepare_device(ComputeSection(device="cuda"))


def test_with_a_gpu_auto_takes_it_and_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert prepare_device(ComputeSection()).type == "cuda"
    assert prepare_device(ComputeSection(device="cpu")) == CPU


@pytest.mark.usefixtures("no_gpu")
def test_the_number_of_threads_is_the_recipes() -> None:
    try:
        prepare_device(ComputeSection(num_threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_autocast_acts_where_the_recipe_asks_for_it() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(ComputeSection(), CPU):
        assert layer(x).dtype == torch.float32
    with autocast(ComputeSection(autocast="bfloat16"), CPU):
        assert layer(x).dtype == torch.bfloat16
