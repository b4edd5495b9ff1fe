"""The frozen reference of the KL prior."""

from copy import deepcopy

from common.config.algorithm import LearnerSection
from common.models.families import PolicyModule


def frozen_reference(policy: PolicyModule, section: LearnerSection) -> PolicyModule | None:
    """A copy of the initial policy, which never learns, where `learner.prior` is kl; else None, and no memory.

    To be taken before the first update, a resumed state or dropout.
    """
    return deepcopy(policy).eval().requires_grad_(False) if section.prior == "kl" else None
