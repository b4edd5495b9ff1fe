"""AdamW as the paper sets it."""

from torch import nn
from torch.optim import AdamW

from common.config.algorithm import LearnerSection


def build_optimizer(policy: nn.Module, section: LearnerSection) -> AdamW:
    """AdamW at a constant rate, without weight decay on parameters whose name contains "norm"."""
    parameters = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in parameters if "norm" not in name]
    exempt = [parameter for name, parameter in parameters if "norm" in name]
    return AdamW(
        [{"params": decayed, "weight_decay": section.weight_decay}, {"params": exempt, "weight_decay": 0.0}],
        lr=section.lr,
        betas=section.betas,
    )
