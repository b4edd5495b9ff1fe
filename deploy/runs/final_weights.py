"""What a training in one process leaves: what was trained whole, or adapters in the files of peft."""

from pathlib import Path

from torch import nn

from common.config.recipe import Recipe
from common.models.adapter_files import AdaptersOf, base_of
from common.models.lora import trained_tensors
from common.models.weights_files import save_weights
from learner.checkpoint import training_state, weights_name, write_weights


def save_final(trained: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write it into the run's folder, which commands then take as a checkpoint. Raises OSError."""
    lora, method = recipe.learner.lora, recipe.learner.method
    if lora is None:
        save_weights(trained.state_dict(), folder / weights_name(method))
        return
    adapters = AdaptersOf(lora, base_of(recipe.policy.checkpoint))
    write_weights(folder, training_state(trained_tensors(trained), {}), method, adapters)
