"""What a training in one process leaves: the policy's weights, or its adapters in the files of peft."""

from pathlib import Path

from common.config.recipe import Recipe
from common.models.adapter_files import AdaptersOf, base_of
from common.models.families import PolicyModule
from common.models.lora import trained_tensors
from common.models.weights_files import save_weights
from learner.checkpoint import POLICY, training_state, write_weights


def save_final(policy: PolicyModule, recipe: Recipe, folder: Path) -> None:
    """Write them into the run's folder, which commands then take as a checkpoint. Raises OSError."""
    lora = recipe.learner.lora
    if lora is None:
        save_weights(policy.state_dict(), folder / POLICY)
        return
    adapters = AdaptersOf(lora, base_of(recipe.policy.checkpoint))
    write_weights(folder, training_state(trained_tensors(policy), {}), adapters)
