"""Where a run's checkpoints go: its folder, and a copy to checkpoint.url; the oldest of both are removed."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.config.recipe import Recipe
from common.errors import first_line
from common.types import WeightSnapshot
from deploy.runs.run_folder import RunFolder, remote_checkpoints
from learner.checkpoint import CheckpointState, prune_checkpoints, write_checkpoint

log = logging.getLogger("vapi.checkpoint")


class CheckpointWriter:
    def __init__(self, recipe: Recipe, folder: RunFolder):
        """Raises RecipeError where checkpoint.url cannot be used."""
        self._keep = recipe.checkpoint.keep
        self._folder = folder
        self._remote = remote_checkpoints(recipe, folder.path.name)

    def write(self, snapshot: WeightSnapshot, optimizer: Mapping[str, np.ndarray], state: CheckpointState) -> Path:
        """Write the checkpoint, complete or not at all; its folder. A copy that fails is told of, and no error."""
        path = write_checkpoint(self._folder.checkpoints, snapshot, optimizer, state)
        prune_checkpoints(self._folder.checkpoints, self._keep)
        self._folder.event("checkpoint", step=state.step, path=str(path))
        if self._remote is not None:
            try:
                self._remote.upload(path)
                self._remote.prune(self._keep)
            except Exception as error:  # each storage has errors of its own; the run has its checkpoint
                log.warning("%s was not copied to checkpoint.url: %s", path.name, first_line(error))
                self._folder.event("checkpoint_not_copied", step=state.step, reason=first_line(error))
        return path
