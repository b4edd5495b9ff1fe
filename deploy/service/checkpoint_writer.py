"""Where a run's checkpoints go: its folder, and a copy to checkpoint.url; the oldest of both are removed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from common.config.recipe import Recipe
from common.errors import first_line
from common.facts import CheckpointNotCopied, CheckpointWritten, Fact
from common.types import WeightSnapshot
from deploy.runs.run_folder import RunFolder, remote_checkpoints
from learner.checkpoint import CheckpointState, prune_checkpoints, write_checkpoint


class CheckpointWriter:
    def __init__(self, recipe: Recipe, folder: RunFolder, tell: Callable[[Fact], None]):
        """Raises RecipeError where checkpoint.url cannot be used."""
        self._keep = recipe.checkpoint.keep
        self._folder = folder
        self._tell = tell
        self._remote = remote_checkpoints(recipe, folder.path.name)

    def write(self, snapshot: WeightSnapshot, optimizer: Mapping[str, np.ndarray], state: CheckpointState) -> Path:
        """Write the checkpoint, complete or not at all; its folder. A copy that fails is told of, and no error."""
        start = perf_counter()
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
