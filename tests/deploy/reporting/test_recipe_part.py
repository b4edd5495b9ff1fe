"""What a report says of a recipe: what differs from the defaults, and all of it."""

from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.reporting.recipe_part import Setting, recipe_part


def settings(recipe: dict[str, Any], section: str) -> list[Setting]:
    found = recipe_part(recipe).settings
    assert found is not None
    return [setting for setting in found if setting.key.startswith(f"{section}.")]


def test_what_differs_is_told_with_its_default(tiny_recipe: Recipe) -> None:
    changed = with_changes(tiny_recipe, {"learner.lr": 0.5, "actors.label_selector": {"ray.io/type": "L4"}})
    assert settings(changed.model_dump(mode="json"), "learner") == [
        Setting("learner.num_steps", "2", "none"),
        Setting("learner.images_per_step", "4", "128"),
        Setting("learner.micro_batch_size", "2", "8"),
        Setting("learner.lr", "0.5", "1e-06"),
    ]
    assert Setting("actors.label_selector.ray.io/type", '"L4"', "") in settings(
        changed.model_dump(mode="json"), "actors"
    )


@pytest.mark.parametrize(
    ("section", "value", "told"),
    [
        ("perceptual", {"family": "lpips", "net": "alex"}, Setting("perceptual.net", '"alex"', '"vgg"')),
        (
            "perceptual",
            {"family": "shift_tolerant_lpips", "net": "vgg"},
            Setting("perceptual.net", '"vgg"', '"alex"'),
        ),
        (
            "source",
            {"kind": "mnist", "held_out_fraction": 0.1},
            Setting("source.held_out_fraction", "0.1", "0.2"),
        ),
    ],
)
def test_a_default_is_that_of_the_sections_own_kind(
    section: str, value: dict[str, Any], told: Setting, tiny_recipe: Recipe
) -> None:
    changed = with_changes(tiny_recipe, {section: value})
    assert told in settings(changed.model_dump(mode="json"), section)


def test_a_recipe_of_an_older_version_is_told_by_the_names_of_today(tiny_recipe: Recipe) -> None:
    older = tiny_recipe.model_dump(mode="json")
    del older["policy"]["obtain_from"]
    older["policy"]["source"] = "the moon"
    assert Setting("policy.obtain_from", '"the moon"', '""') in settings(older, "policy")


def test_a_recipe_that_this_version_cannot_read_is_shown_whole() -> None:
    part = recipe_part({"momentum": 0.9})
    assert part.settings is None
    assert part.whole == '{\n  "momentum": 0.9\n}'
