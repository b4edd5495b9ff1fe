"""What a checkpoint must have in common with the recipe that resumes from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import CheckpointError, RecipeError
from common.models.adapter_files import Base, base_of
from common.models.weights_files import save_published
from common.types import WeightSnapshot
from deploy.service.same_run import require_same_base, require_same_run
from learner.checkpoint import Checkpoint, CheckpointState


def state(recipe: dict[str, Any]) -> CheckpointState:
    return CheckpointState(step=3, ledger={}, groups_learned=12, images_skipped=0, recipe=recipe)


def stored(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def test_a_run_goes_on_with_other_settings_of_what_surrounds_the_algorithm(tiny_recipe: Recipe) -> None:
    require_same_run(
        with_changes(tiny_recipe, {"actors.count": 3, "learner.num_steps": 9}), state(stored(tiny_recipe))
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"learner.lora": {"rank": 3}}, "learner.lora"),
        ({"policy.num_classes": 5, "group.size": 2}, "policy, group"),
        (
            {"learner.images_per_step": 8, "actors.images_per_ticket": 4},
            "learner.images_per_step, actors.images_per_ticket",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(changes: dict[str, Any], named: str, tiny_recipe: Recipe) -> None:
    with pytest.raises(
        RecipeError, match=f"^the checkpoint to resume from was made with another {named}: resume with"
    ):
        require_same_run(with_changes(tiny_recipe, changes), state(stored(tiny_recipe)))


def test_a_checkpoint_from_before_a_key_was_renamed_goes_on(tiny_recipe: Recipe) -> None:
    older = stored(with_changes(tiny_recipe, {"policy.obtain_from": "the moon"}))
    for section in ("policy", "tokenizer"):
        older[section]["source"] = older[section].pop("obtain_from")
    require_same_run(with_changes(tiny_recipe, {"policy.obtain_from": "the moon"}), state(older))


def test_a_checkpoint_from_before_a_key_was_added_goes_on(tiny_recipe: Recipe) -> None:
    older = stored(tiny_recipe)
    del older["group"]["top_k"]
    require_same_run(tiny_recipe, state(older))


def test_a_checkpoint_with_the_reward_s_weights_by_their_older_names_goes_on(tiny_recipe: Recipe) -> None:
    older = stored(tiny_recipe)
    for name in ("mse", "lpips", "l1"):
        older["reward"][f"{name}_weight"] = older["reward"].pop(name)
    del older["reward"]["python"], older["rollout"]
    require_same_run(tiny_recipe, state(older))
    with pytest.raises(RecipeError, match="was made with another group: resume with"):
        require_same_run(with_changes(tiny_recipe, {"group.size": 2}), state(older))
    both = older | {"reward": {"mse": 1.0, "mse_weight": 1.0}}
    with pytest.raises(
        RecipeError, match=r"another version \(.*\): reward\.mse_weight is an older name of reward\.mse,"
    ):
        require_same_run(tiny_recipe, state(both))


def test_a_checkpoint_whose_recipe_cannot_be_read_is_refused_in_a_sentence(tiny_recipe: Recipe) -> None:
    with pytest.raises(RecipeError) as caught:
        require_same_run(tiny_recipe, state(stored(tiny_recipe) | {"momentum": 0.9}))
    assert str(caught.value) == (
        "the checkpoint to resume from has a recipe of another version (start anew with resume=never): "
        "momentum is not a recipe key: see deploy/recipes"
    )


def test_adapters_go_on_beside_the_same_weights_in_whatever_file_and_not_beside_others(
    small_run: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = small_run("run", {"learner.lora": {"rank": 3}})

    def checkpoint(base: Base | None) -> Checkpoint:
        weights = WeightSnapshot(3, (), np.zeros(0, np.uint8))
        return Checkpoint(tmp_path / "step-000003", state(stored(recipe)), weights, {}, base)

    kept = checkpoint(base_of(recipe.policy.checkpoint))
    weights = load_file(recipe.policy.checkpoint)
    save_published(weights, tmp_path / "same.pt", "model")
    require_same_base(with_changes(recipe, {"policy.checkpoint": str(tmp_path / "same.pt")}), kept)
    weights["norm.weight"][0] += 1
    save_published(weights, tmp_path / "other.pt", "model")
    other = with_changes(recipe, {"policy.checkpoint": str(tmp_path / "other.pt")})
    require_same_base(other, checkpoint(None))
    with pytest.raises(CheckpointError, match=r"step-000003 were trained beside .*other\.pt now holds others"):
        require_same_base(other, kept)
