"""A process's machine: device and precision, compiler, memory, place in the cluster."""

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import torch

from common.config.service import ComputeSection
from common.errors import ClusterError

_STATM = Path("/proc/self/statm")


def prepare_device(section: ComputeSection) -> torch.device:
    """Set PyTorch's number of threads from the recipe, and return the device to compute on."""
    torch.set_num_threads(section.num_threads)
    available = torch.cuda.is_available()
    if section.device == "cuda" and not available:
        raise ClusterError(
            "compute.device is cuda, but this process sees no GPU: give it one (actors.num_gpus, "
            "learner.num_gpus), or set compute.device=cpu"
        )
    return torch.device("cuda" if available and section.device != "cpu" else "cpu")


def autocast(section: ComputeSection, device: torch.device) -> AbstractContextManager:
    """bfloat16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=section.autocast == "bfloat16")


def require_compiler(device: torch.device) -> None:
    """Raise ClusterError if torch.compile cannot generate code for `device` in this process."""
    compiler = os.environ.get("CXX", "g++")  # as PyTorch does
    if shutil.which(compiler) is None:
        raise ClusterError(
            f"compute.compile is true, but this process finds no C++ compiler ({compiler}): install one, point "
            "CXX at one, or set compute.compile=false"
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise ClusterError(
            "compute.compile is true, but Triton, which compiles for the GPU, is not installed: install the "
            "triton of your PyTorch, or set compute.compile=false"
        )


def resident_bytes() -> int:
    """Resident bytes of this process, shared object-store pages included; 0 if /proc is not available.

    The proportional size (PSS) would need a walk through a large process's page tables at each call.
    """
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux
        return 0


def gpu_peak_bytes(device: torch.device) -> int:
    """Peak bytes of this process's tensors on `device` so far; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def gpu_uuid(device: torch.device) -> str:
    """The name that no other GPU has; "" for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def needs_text(num_cpus: float, num_gpus: float, labels: Mapping[str, str], free: Mapping[str, float]) -> str:
    """Describe the resources needed and the `free` ones of Ray."""
    listed = ", ".join(f"{key} = {value}" for key, value in labels.items())
    node = f" on a node with the label {listed}" if listed else ""
    return (
        f"{num_cpus:g} CPU and {num_gpus:g} GPU{node}, and the cluster has {free.get('CPU', 0):g} CPU and "
        f"{free.get('GPU', 0):g} GPU free"
    )
