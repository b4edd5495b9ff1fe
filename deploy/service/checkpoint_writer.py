"""Where a run's checkpoints go: its folder, and a copy to checkpoint.url; the oldest of both are removed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from common.config.recipe import Recipe
from common.errors import first_line
from common.facts import CheckpointNotCopied, CheckpointWritten, Fact
from common.types import WeightSnapshot
from deploy.runs.run_folder import RunFolder, remote_checkpoints
from deploy.service.stepper import Counts
from learner.checkpoint import CheckpointState, prune_checkpoints, write_checkpoint


class CheckpointWriter:
    def __init__(self, recipe: Recipe, folder: RunFolder, tell: Callable[[Fact], None]):
        """Raises RecipeError where checkpoint.url cannot be used."""
        self._keep = recipe.checkpoint.keep
        self._recipe = recipe.model_dump(mode="json")
        self._folder = folder
        self._tell = tell
        self._remote = remote_checkpoints(recipe, folder.path.name)

    def write(
        self,
        snapshot: WeightSnapshot,
        optimizer: Mapping[str, np.ndarray],
        counts: Counts,
        ledger: dict[str, Any],
    ) -> Path:
        """Write the checkpoint, complete or not at all; its folder. A copy that fails is told of, and no error."""
        start = perf_counter()
        state = CheckpointState(ledger=ledger, recipe=self._recipe, **asdict(counts))
        path = write_checkpoint(self._folder.checkpoints, snapshot, optimizer, state)
        prune_checkpoints(self._folder.checkpoints, self._keep)
        if self._remote is not None:
            try:
                self._remote.upload(path)
                self._remote.prune(self._keep)
            except Exception as error:  # each storage has errors of its own; the run has its checkpoint
                self._tell(CheckpointNotCopied(state.step, first_line(error)))
        self._tell(CheckpointWritten(state.step, path, perf_counter() - start))
        return path
