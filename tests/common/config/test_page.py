"""The page of recipe keys: current, and complete."""

from pathlib import Path

from common.config.keys import parts
from common.config.page import PAGE, page
from common.config.recipe import Recipe


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text() == page(), "make it anew: python -m common.config.page"


def test_every_key_has_a_meaning() -> None:
    assert [key.path for part in parts() for key in part.keys if not key.meaning] == []


def test_every_section_stands_in_order() -> None:
    tops = [part.path for part in parts() if part.path and "." not in part.path]
    sections = [name for name in Recipe.model_fields if name not in ("seed", "image_size", "profile", "resume")]
    assert list(dict.fromkeys(tops)) == sections


def test_types_and_defaults_are_told_as_a_recipe_writes_them() -> None:
    keys = {key.path: (key.type, key.default) for part in parts() for key in part.keys}
    assert keys["learner.lr"] == ("number, > 0", "1e-06")
    assert keys["learner.num_steps"] == ("integer, > 0", "required")
    assert keys["learner.betas"] == ("list of 2: number, ≥ 0, < 1", "[0.9, 0.999]")
    assert keys["policy.size"] == ("`B` | `L` | `XL` | `XXL` | `3B`, or a section, below", "required")
    assert keys["perceptual.trunk"] == ("text, or null", "null")
    assert keys["actors.label_selector"] == ("mapping of text to text", "{}")


def test_a_section_of_several_kinds_is_told_kind_by_kind() -> None:
    kinds = [part.kind for part in parts() if part.path == "source"]
    assert kinds == ["kind: mnist", "kind: image_folder", "kind: parquet"]


def test_the_readme_points_at_the_page() -> None:
    assert "(docs/recipes.md)" in (Path(PAGE).parents[1] / "README.md").read_text()
