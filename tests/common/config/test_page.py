"""The page of recipe keys and their JSON schema: current, and complete."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from common.config.keys import parts
from common.config.page import PAGE, SCHEMA, page, schema
from common.config.recipe import Recipe

SHIPPED = sorted(SCHEMA.parent.glob("*.yaml"))


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text() == page(), "make it anew: python -m common.config.page"


def test_the_schema_beside_the_recipes_is_current() -> None:
    assert SCHEMA.read_text() == schema(), "make it anew: python -m common.config.page"


def problems(recipe: dict[str, Any]) -> list[str]:
    """What an editor underlines."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [error.message for error in validator.iter_errors(recipe)]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_names_the_schema_and_fits_it(shipped: Path) -> None:
    text = shipped.read_text()
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert problems(yaml.safe_load(text)) == []


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_a_resolved_recipe_fits_the_schema(tiny_recipe: Recipe) -> None:
    assert problems(tiny_recipe.model_dump(mode="json")) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sede": 1}, "Additional properties are not allowed ('sede' was unexpected)"),
        ({"learner": {"num_steps": 0}}, "0 is less than or equal to the minimum of 0"),
        ({"learner": {}}, "'num_steps' is a required property"),
        ({"profile": "fast"}, "'fast' is not one of ['corrected', 'published']"),
    ],
)
def test_the_schema_refuses_what_a_recipe_cannot_be(
    changes: dict[str, Any], problem: str, tiny_recipe: Recipe
) -> None:
    assert problems(tiny_recipe.model_dump(mode="json") | changes) == [problem]


def test_every_key_has_a_meaning() -> None:
    assert [key.path for part in parts() for key in part.keys if not key.meaning] == []


def test_every_section_stands_in_order() -> None:
    tops = [part.path for part in parts() if part.path and "." not in part.path]
    sections = [
        name
        for name in Recipe.model_fields
        if name not in ("seed", "image_size", "profile", "placement", "resume")
    ]
    assert list(dict.fromkeys(tops)) == sections


def test_types_and_defaults_are_told_as_a_recipe_writes_them() -> None:
    keys = {key.path: (key.type, key.default) for part in parts() for key in part.keys}
    assert keys["learner.lr"] == ("number, > 0", "1e-06")
    assert keys["learner.num_steps"] == ("integer, > 0", "required")
    assert keys["learner.betas"] == ("list of 2: number, ≥ 0, < 1", "[0.9, 0.999]")
    sizes = [key.type for part in parts() for key in part.keys if key.path == "policy.size"]  # of each family
    assert sizes == ["`B` | `L` | `XL` | `XXL` | `3B`, or a section, below", "`1B` | `7B`, or a section, below"]
    assert keys["perceptual.trunk"] == ("text, or null", "null")
    assert keys["actors.label_selector"] == ("mapping of text to text", "{}")


def test_a_section_of_several_kinds_is_told_kind_by_kind() -> None:
    kinds = [part.kind for part in parts() if part.path == "source"]
    known = ("mnist", "emoji", "image_folder", "parquet", "classes", "prompts")
    assert kinds == [f"kind: {name}" for name in known]


def test_the_readme_points_at_the_page() -> None:
    assert "(docs/recipes.md)" in (Path(PAGE).parents[1] / "README.md").read_text()
