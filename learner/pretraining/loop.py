"""A resumable supervised training loop, which `pretrain` runs for each of its stages."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from common.atomic import replacing
from common.config.service import PretrainStage
from common.errors import CheckpointError
from common.models.weights_reading import not_finite

# (optimizer step, counted from 0) → the loss to minimise, and numbers to show with it
LossFunction = Callable[[int], tuple[Tensor, Mapping[str, float]]]


@dataclass(frozen=True)
class StageProgress:
    step: int
    num_steps: int
    loss: float
    shown: Mapping[str, float]


def train_stage(
    model: nn.Module,
    loss_function: LossFunction,
    stage: PretrainStage,
    *,
    state_path: Path,
    save_every: int,
    on_step: Callable[[StageProgress], None],
) -> None:
    """Train `model` in place for `stage.num_steps` steps, from the state at `state_path` if it exists.

    The state is replaced every `save_every` steps. Batches depend on the step alone, so an interrupted stage gives
    the same result as an uninterrupted one.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, betas=(0.9, 0.95), weight_decay=0.05)
    first_step = _load(state_path, model, optimizer)
    model.train()
    for step in range(first_step, stage.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * schedule(step, stage.num_steps, stage.schedule)
        torch.manual_seed(step)  # dropout: a resumed stage draws the same as an uninterrupted one
        loss, shown = loss_function(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % save_every == 0:
            _save(state_path, model, optimizer, step + 1)
        on_step(StageProgress(step + 1, stage.num_steps, float(loss.detach()), shown))
    model.eval()


def schedule(step: int, num_steps: int, kind: Literal["cosine", "constant", "wsd"]) -> float:
    """Share of the peak rate: linear over the first 2 % of the steps, then a cosine down to a tenth, or 1.

    wsd: 1, and the cosine over the last fifth.
    """
    warmup = max(1, num_steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    begin = decay_begins(num_steps) if kind == "wsd" else warmup
    progress = max(0, step - begin) / max(1, num_steps - begin)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def decay_begins(num_steps: int) -> int:
    """The step from which a rate decays under wsd."""
    return num_steps - num_steps // 5


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"{path}, from which pretraining would go on, cannot be read ({type(error).__name__}): remove it"
        ) from error
    if sick := not_finite(model.state_dict()):
        raise CheckpointError(f"{path} holds NaN or infinity in {sick}: remove it, and lower the stage's lr")
    return state["step"]


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    with replacing(path) as temporary:
        torch.save(state, temporary)
