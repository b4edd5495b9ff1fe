"""AdamW with the paper's settings."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from common.config.algorithm import LearnerSection
from common.weights.snapshot import as_array

Arrays = Mapping[str, np.ndarray]


def build_optimizer(policy: nn.Module, section: LearnerSection, beside: nn.Module | None = None) -> AdamW:
    """AdamW with a constant rate, without weight decay for parameters with "norm" in their name.

    `beside` is trained with the policy.
    """
    named = [*policy.named_parameters(), *(beside.named_parameters() if beside is not None else ())]
    parameters = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    decayed = [parameter for name, parameter in parameters if "norm" not in name]
    exempt = [parameter for name, parameter in parameters if "norm" in name]
    return AdamW(
        [{"params": decayed, "weight_decay": section.weight_decay}, {"params": exempt, "weight_decay": 0.0}],
        lr=section.lr,
        betas=section.betas,
        fused=_is_on_gpu(policy) or None,
    )


def optimizer_arrays(optimizer: AdamW, policy: nn.Module) -> Arrays:
    """AdamW's state by parameter: `NAME.step`, `NAME.exp_avg`, `NAME.exp_avg_sq`; empty before the first step.

    Of a CPU's tensors it is their own memory, which the next step changes.
    """
    return {
        f"{name}.{key}": as_array(value)
        for name, parameter in policy.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_arrays(optimizer: AdamW, policy: nn.Module, arrays: Arrays) -> None:
    """Restore the state returned by `optimizer_arrays`."""
    trained = ((name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad)
    for name, parameter in trained:
        state = {key: arrays.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if any(value is None for value in state.values()):
            if arrays:
                raise ValueError(f"the optimizer state has nothing for {name}: it belongs to another model")
            continue
        # the moments are on the parameter's device, and step too where the kernel is fused
        step_device = parameter.device if optimizer.defaults["fused"] else torch.device("cpu")
        optimizer.state[parameter] = {
            key: torch.from_numpy(np.array(value)).to(step_device if key == "step" else parameter.device)
            for key, value in state.items()
        }


def _is_on_gpu(policy: nn.Module) -> bool:
    return all(parameter.is_cuda for parameter in policy.parameters())
