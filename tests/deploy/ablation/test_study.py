"""Studies are checked before anything runs."""

from collections.abc import Callable

import pytest

from common.errors import RecipeError
from deploy.ablation.study import STUDIES, load_study

StudyFile = Callable[..., str]


@pytest.mark.parametrize(
    ("name", "num_variants"), [("components", 5), ("noise", 5), ("prior", 3), ("group", 4), ("staleness", 7)]
)
def test_every_shipped_study_fits_its_recipe_and_has_three_seeds(name: str, num_variants: int) -> None:
    study = load_study(name)
    assert study.section.name == name
    assert len(study.section.variants) == num_variants
    assert len(study.cells) == 3 * num_variants


def test_no_shipped_study_is_left_out_above() -> None:
    assert len(list(STUDIES.glob("*.yaml"))) == 5


def test_all_variants_run_with_the_first_seed_before_any_runs_with_the_second(study_file: StudyFile) -> None:
    cells = load_study(study_file()).cells
    assert [cell.name for cell in cells] == ["all-seed0", "prior_alone-seed0", "all-seed7", "prior_alone-seed7"]
    assert [cell.index for cell in cells] == [0, 0, 1, 1]


def test_changes_and_overrides_hold_for_every_cell_and_for_the_scoring(study_file: StudyFile) -> None:
    study = load_study(study_file(changes={"learner.lr": 0.5, "group.size": 2}), ["group.size=3"])
    for recipe in (study.recipe, *(cell.recipe for cell in study.cells)):
        assert (recipe.learner.lr, recipe.group.size) == (0.5, 3)
    assert study.recipe.reward.mse_weight == 1  # what a variant leaves out is scored all the same


def test_the_group_study_decodes_as_many_pictures_in_every_variant() -> None:
    recipes = [cell.recipe for cell in load_study("group").cells]
    assert {recipe.group.size * recipe.learner.images_per_step for recipe in recipes} == {256}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"seeds": [1, 1]}, "name each seed once"),
        ({"variants": {"a": {"learner.lrr": 1}}}, "variant a: .*did you mean learner.lr"),
        ({"variants": {"a": {"group.size": 1}}}, "variant a: .*group.size is 1"),
        ({"variants": {"a": {"evaluation.seed": 1}}}, "evaluation.seed must be the same for all variants"),
        ({"variants": {"a": {"seed": 1}}}, "seed must be the same for all variants"),
        ({"variants": {"base": {}}}, "choose another name"),
        ({"variants": {"a b": {}, "a_b": {}}}, "tell them apart"),
        ({"variants": {"a": {"delay": -1}}}, "delay is -1"),
        ({"variants": {"a": {"delay": 1}}, "runner": "train"}, "delay is for runner: local"),
        ({"variants": {"a": {"profile": "published"}}}, "runner: train alone"),
        ({"changes": {"evaluation.classifier": ""}}, "evaluation.classifier names no weights file"),
    ],
)
def test_a_mistake_is_named_with_its_variant_and_key(study_file: StudyFile, keys: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_study(study_file(**keys))


def test_an_unknown_study_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="components, group, noise, prior, staleness"):
        load_study("nothing")
