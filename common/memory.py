"""The memory that a process uses, cheap enough to read at every ticket and step."""

import os
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Bytes of this process in RAM, with what it has read of the shared object store; 0 where /proc has no answer.

    Reading what is shared by how many (PSS) would walk the page tables of a large process each time.
    """
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # no Linux
        return 0


def gpu_peak_bytes(device: torch.device) -> int:
    """Most bytes that this process's tensors have taken on `device` so far; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
