"""The types that cross rooms, besides the table of groups in `common/schema.py`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class WorkTicket:
    """Ledger → actor: samples to roll out as one unit of work."""

    ticket_id: int  # position in the run: ticket n holds samples n·size … (n+1)·size - 1
    sample_indices: tuple[int, ...]


@dataclass(frozen=True)
class SkippedImage:
    """An image that gave no group, or a group that cannot be learned from."""

    sample_index: int
    image_id: str
    reason: str
    is_quarantined: bool = False  # it could be decoded, but a term of the reward failed, or a number is not finite


@dataclass(frozen=True)
class GroupReceipt:
    """Actor → driver: the result of a ticket. The groups themselves stay in the object store."""

    ticket_id: int
    policy_version: int
    num_groups: int
    num_bytes: int
    skipped: tuple[SkippedImage, ...]
    stage_seconds: Mapping[str, float]  # read, encode, … perceptual; transfer if weights were fetched
    num_tokens: int = 0  # sampled
    resident_bytes: int = 0  # memory of the actor's process
    gpu_peak_bytes: int = 0  # peak GPU memory of its tensors so far; 0 without a GPU
    awaits_judges: bool = False  # judge actors have yet to complete the groups
    judge_seconds: float = 0.0  # of a judge actor
    num_pictures_judged: int = 0  # by it


@dataclass(frozen=True)
class WeightEntry:
    """Where a tensor lies in the buffer of a snapshot."""

    name: str
    dtype: str  # of torch, such as "bfloat16"
    shape: tuple[int, ...]
    start: int  # its first byte


@dataclass(frozen=True)
class WeightSnapshot:
    """Learner → actors: the weights of one policy version, end to end in one buffer."""

    version: int  # optimizer steps behind these weights: every step publishes
    entries: tuple[WeightEntry, ...]
    buffer: np.ndarray  # uint8

    @property
    def num_bytes(self) -> int:
        return self.buffer.nbytes


@dataclass(frozen=True)
class TrainingState:
    """Learner → checkpoint: the weights in full precision, and the optimizer's state.

    numpy has no bfloat16, so it travels as its int16 bits.
    """

    weights: Mapping[str, np.ndarray]  # by parameter name
    bfloat16_names: frozenset[str]  # of weights
    optimizer: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class StepReport:
    """Learner → driver: one optimizer step. Loss terms and rewards are means over the step's groups."""

    step: int  # optimizer steps so far, this one included
    num_groups: int
    loss: float
    policy_loss: float
    ce_prior: float
    reward_mean: float
    reward_std: float  # mean over groups of the std over a group's samples
    clip_fraction: float  # share of tokens whose ratio left [1 - ε, 1 + ε]
    kl: float  # KL(behaviour policy ‖ policy) per token, before the update, estimated on the sampled tokens
    entropy: float  # of the policy per token, in nats, at the sampling temperature, before the update
    grad_norm: float  # before clipping
    kl_prior: float = 0.0  # KL(policy ‖ initial policy) a token, where it is the prior
    reward_terms: Mapping[str, float] = field(default_factory=dict)  # by name; one that was not measured is absent
    better: Mapping[str, str] = field(default_factory=dict)  # "higher" or "lower", of the user's own terms
    num_flat: int = 0  # of num_groups, those that teach nothing: all samples have the same reward
    num_dropped: int = 0  # samples in num_groups that a judge gave no score, and so taught nothing
    num_quarantined: int = 0  # groups of the step that were not learned from, beside num_groups
    is_bad: bool = False  # the gradient was no finite number: weights and optimizer are as before the step
    is_partial: bool = False  # a rank died after the update: means are over the groups of the others
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # fetch, forward_backward, optimizer
    resident_bytes: int = 0  # memory of the largest rank's process
    gpu_peak_bytes: int = 0  # most GPU memory that a rank's tensors have taken so far; 0 without a GPU

    def line(self) -> dict[str, Any]:
        """All of it, as metrics.jsonl has it: each term of the reward under a key of its own, reward_NAME.

        `better` is there only where the user has terms of their own.
        """
        values = asdict(self)
        terms = values.pop("reward_terms")
        if not self.better:
            del values["better"]
        return values | {f"reward_{name}": mean for name, mean in terms.items()}
