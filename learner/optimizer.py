"""AdamW with the paper's settings."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from common.config.algorithm import LearnerSection


def build_optimizer(policy: nn.Module, section: LearnerSection) -> AdamW:
    """AdamW with a constant rate, without weight decay for parameters with "norm" in their name."""
    parameters = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in parameters if "norm" not in name]
    exempt = [parameter for name, parameter in parameters if "norm" in name]
    return AdamW(
        [{"params": decayed, "weight_decay": section.weight_decay}, {"params": exempt, "weight_decay": 0.0}],
        lr=section.lr,
        betas=section.betas,
    )


def optimizer_arrays(optimizer: AdamW, policy: nn.Module) -> dict[str, np.ndarray]:
    """AdamW's state by parameter: `NAME.step`, `NAME.exp_avg`, `NAME.exp_avg_sq`; empty before the first step."""
    return {
        f"{name}.{key}": np.array(value.detach().cpu().numpy())
        for name, parameter in policy.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_arrays(optimizer: AdamW, policy: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Restore the state returned by `optimizer_arrays`."""
    for name, parameter in policy.named_parameters():
        state = {key: arrays.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if any(value is None for value in state.values()):
            if arrays:
                raise ValueError(f"the optimizer state has nothing for {name}: it belongs to another model")
            continue
        # AdamW keeps step on the CPU, and the moments on the parameter's device
        optimizer.state[parameter] = {
            key: torch.from_numpy(np.array(value)).to("cpu" if key == "step" else parameter.device)
            for key, value in state.items()
        }
