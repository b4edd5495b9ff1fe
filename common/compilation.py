"""What torch.compile needs of a machine, asked before the first forward would fail for the lack of it."""

import os
import shutil
from importlib.util import find_spec

import torch

from common.errors import ClusterError


def require_compiler(device: torch.device) -> None:
    """Raise ClusterError where torch.compile cannot make code for `device` in this process."""
    compiler = os.environ.get("CXX", "g++")  # where PyTorch looks
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
