"""What a process says of its memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import memory
from common.memory import gpu_peak_bytes, resident_bytes
from common.paths import CHECKOUT


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_in_use_is_counted_and_given_back() -> None:
    """In a process of its own: this one has pages that it freed, and may use them again."""
    code = (
        "import numpy as np; from common.memory import resident_bytes; before = resident_bytes(); "
        "block = np.ones(50_000_000, dtype=np.uint8); print(resident_bytes() - before); "
        "del block; print(resident_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    more, afterwards = map(int, done.stdout.split())
    assert 40e6 < more < 80e6
    assert afterwards < 40e6


def test_a_system_without_proc_gives_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    assert resident_bytes() == 0


def test_a_cpu_has_no_gpu_memory() -> None:
    assert gpu_peak_bytes(torch.device("cpu")) == 0
