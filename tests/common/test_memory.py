"""What a process says of its memory."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common import memory
from common.memory import gpu_peak_bytes, resident_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_in_use_is_counted_and_given_back() -> None:
    before = resident_bytes()
    block = np.ones(50_000_000, dtype=np.uint8)
    assert 40e6 < resident_bytes() - before < 80e6
    del block
    assert resident_bytes() - before < 40e6


def test_a_system_without_proc_gives_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    assert resident_bytes() == 0


def test_a_cpu_has_no_gpu_memory() -> None:
    assert gpu_peak_bytes(torch.device("cpu")) == 0
