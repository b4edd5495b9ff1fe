"""The device and the precision that a recipe's `compute` section means in this process."""

from contextlib import AbstractContextManager

import torch

from common.config.service import ComputeSection
from common.errors import ClusterError


def prepare_device(section: ComputeSection) -> torch.device:
    """Set PyTorch's threads as the recipe says, and return the device to compute on."""
    torch.set_num_threads(section.num_threads)
    available = torch.cuda.is_available()
    if section.device == "cuda" and not available:
        raise ClusterError(
            "compute.device is cuda, but this process sees no GPU: give it one (actors.num_gpus, "
            "learner.num_gpus), or set compute.device=cpu"
        )
    return torch.device("cuda" if available and section.device != "cpu" else "cpu")


def autocast(section: ComputeSection, device: torch.device) -> AbstractContextManager:
    """bfloat16 autocast where the recipe asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=section.autocast == "bfloat16")
