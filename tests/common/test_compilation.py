"""What is said where torch.compile would fail."""

import sys
from pathlib import Path

import pytest
import torch

from common.compilation import require_compiler
from common.errors import ClusterError


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
