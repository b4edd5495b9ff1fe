"""The machine as a process sees it: device, compiler, memory, its place in the cluster."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import machine
from common.config.service import ComputeSection
from common.errors import ClusterError
from common.machine import autocast, gpu_peak_bytes, needs_text, prepare_device, require_compiler, resident_bytes
from common.paths import CHECKOUT

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


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler of the name that PyTorch looks for, the only program there is."""
    path = tmp_path / "bin" / "g++"
    path.parent.mkdir()
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.delenv("CXX", raising=False)
    return path


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_cpp_compiler_the_ways_out_are_said(device: str, compiler: Path) -> None:
    compiler.unlink()
    with pytest.raises(ClusterError, match=r"finds no C\+\+ compiler \(g\+\+\): .* or set compute\.compile=false"):
        require_compiler(torch.device(device))


def test_the_compiler_may_be_another(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "gone++")
    with pytest.raises(ClusterError, match=r"C\+\+ compiler \(gone\+\+\)"):
        require_compiler(torch.device("cpu"))


@pytest.mark.usefixtures("compiler")
def test_a_gpu_needs_triton_and_a_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    require_compiler(torch.device("cpu"))
    with pytest.raises(ClusterError, match="Triton, which compiles for the GPU, is not installed"):
        require_compiler(torch.device("cuda"))


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_in_use_is_counted_and_given_back() -> None:
    """In a process of its own: this one has pages that it freed, and may use them again."""
    code = (
        "import numpy as np; from common.machine import resident_bytes; before = resident_bytes(); "
        "block = np.ones(50_000_000, dtype=np.uint8); print(resident_bytes() - before); "
        "del block; print(resident_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    more, afterwards = map(int, done.stdout.split())
    assert 40e6 < more < 80e6
    assert afterwards < 40e6


def test_a_system_without_proc_gives_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_STATM", tmp_path / "statm")
    assert resident_bytes() == 0


def test_a_cpu_has_no_gpu_memory() -> None:
    assert gpu_peak_bytes(torch.device("cpu")) == 0


def test_resources_labels_and_what_is_free_are_named() -> None:
    assert needs_text(2, 0.5, {}, {"CPU": 4.0}) == ("2 CPU and 0.5 GPU, and the cluster has 4 CPU and 0 GPU free")
    assert needs_text(1, 1, {"vapi-role": "learner", "zone": "a"}, {"CPU": 8.0, "GPU": 0.25}) == (
        "1 CPU and 1 GPU on a node with the label vapi-role = learner, zone = a, and the cluster has 8 CPU and "
        "0.25 GPU free"
    )
