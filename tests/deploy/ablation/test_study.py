"""Studies are checked before anything runs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import RecipeError
from deploy.ablation.study import STUDIES, load_study

StudyFile = Callable[..., str]


@pytest.mark.parametrize(
    ("name", "num_variants"),
    [
        ("emoji_reward", 7),
        ("emoji_credit", 7),
        ("components", 5),
        ("reward", 4),
        ("noise", 5),
        ("noise_kinds", 5),
        ("prior", 6),
        ("credit", 11),
        ("group", 4),
        ("staleness", 5),
        ("decoder_terms", 4),
        ("paper_table", 14),
        ("paper_table_seconds", 7),
        ("emoji_paper_table", 11),
    ],
)
def test_every_shipped_study_fits_its_recipe_and_has_three_seeds(name: str, num_variants: int) -> None:
    study = load_study(name)
    assert study.section.name == name
    assert len(study.section.variants) == num_variants
    assert len(study.cells) == 3 * num_variants


def test_no_shipped_study_is_left_out_above() -> None:
    assert len(list(STUDIES.glob("*.yaml"))) == 14


def test_all_variants_run_with_the_first_seed_before_any_runs_with_the_second(study_file: StudyFile) -> None:
    cells = load_study(study_file()).cells
    assert [cell.name for cell in cells] == [
        "all, seed 0",
        "prior alone, seed 0",
        "all, seed 7",
        "prior alone, seed 7",
    ]
    assert [cell.index for cell in cells] == [0, 0, 1, 1]


def test_a_cell_is_the_same_in_every_study_that_has_its_settings(study_file: StudyFile) -> None:
    everything, prior, _, _ = load_study(study_file()).cells
    renamed, stale, other_lr, other_seed = load_study(
        study_file(name="other", variants={"a": {}, "b": {"delay": 1}, "c": {"learner.lr": 0.5}}, seeds=[0, 1])
    ).cells[:4]
    assert renamed.key == everything.key
    assert len({each.key for each in (everything, prior, stale, other_lr, other_seed)}) == 5
    (scored_otherwise, *_) = load_study(study_file(changes={"evaluation.num_held_out": 2})).cells
    assert scored_otherwise.key != everything.key


def test_the_base_is_scored_with_the_sampling_seeds_of_the_cells_and_at_least_three(study_file: StudyFile) -> None:
    study = load_study(study_file())
    assert [cell.scored_by.evaluation.seed for cell in study.base] == [1000, 1001, 1002]
    assert [cell.scored_by for cell in study.cells] == [study.base[cell.index].scored_by for cell in study.cells]


def test_changes_and_overrides_hold_for_every_cell_and_for_the_scoring(study_file: StudyFile) -> None:
    study = load_study(study_file(changes={"learner.lr": 0.5, "group.size": 2}), ["group.size=3"])
    for cell in study.cells:
        for recipe in (cell.recipe, cell.scored_by):
            assert recipe is not None
            assert (recipe.learner.lr, recipe.group.size) == (0.5, 3)
    assert study.recipe.reward.mse == 1  # what a variant leaves out is scored all the same


def test_the_older_names_of_the_reward_s_weights_make_the_same_cells(study_file: StudyFile) -> None:
    named = {"a": {"reward.mse": 0.5, "reward.l1": 2}, "b": {"reward": {"mse": 0, "lpips": 1}}}
    older = {"a": {"reward.mse_weight": 0.5, "reward.l1_weight": 2}, "b": {"reward": {"mse_weight": 0}}}
    by_name, by_older_name = (load_study(study_file(variants=each)) for each in (named, older))
    assert [cell.key for cell in by_name.cells] == [cell.key for cell in by_older_name.cells]
    changed = load_study(study_file(changes={"reward.lpips_weight": 0.5}), ["reward.mse_weight=3"])
    assert changed.recipe.reward.weights == {"mse": 3, "lpips": 0.5}


def test_the_group_study_decodes_as_many_pictures_in_every_variant() -> None:
    recipes = [cell.recipe for cell in load_study("group").cells if cell.recipe]
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
        ({"variants": {"a": {"delay": -1}}}, "delay is -1"),
        ({"variants": {"a": {"delay": 1}}, "runner": "train"}, "delay is for runner: local"),
        ({"variants": {"a": {"profile": "published"}}}, "runner: train alone"),
        ({"variants": {"a": {"sampled": {"temperature": 1}, "learner.lr": 1}}}, "a: sampled is for the base"),
        ({"variants": {"a": {"sampled": 0.8}}}, "a: sampled is for the base"),
        ({"variants": {"a": {"sampled": {"warmth": 1}}}}, "variant a: sampling.warmth"),
        ({"variants": {"a": {"sampled": {"temperature": -1}}}}, "variant a: sampling.temperature"),
        ({"changes": {"evaluation.classifier": ""}}, "evaluation.classifier names no weights file"),
    ],
)
def test_a_mistake_is_named_with_its_variant_and_key(study_file: StudyFile, keys: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_study(study_file(**keys))


def test_a_key_given_twice_is_refused_with_both_lines(study_file: StudyFile) -> None:
    path = Path(study_file())
    path.write_text("variants:\n  a: {}\n  a: {}\n")
    with pytest.raises(RecipeError, match=r"line 3 gives variants\.a again, which line 2 gives"):
        load_study(str(path))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"variants": {1: {}}}, "YAML reads it as the number 1; quote it"),
        ({"name": 2024}, "YAML reads it as the number 2024; quote it"),
        ({"seeds": [True]}, "valid integer"),
        ({"variants": {"a": {"delay": True}}}, "delay is True: use a whole number"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_looks_is_refused(study_file: StudyFile, keys: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        load_study(study_file(**keys))


def test_an_unknown_study_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(
        RecipeError,
        match="components, credit, decoder_terms, emoji_credit, emoji_paper_table, emoji_reward, group, noise, "
        "noise_kinds, paper_table, paper_table_seconds, prior, reward, staleness",
    ):
        load_study("nothing")
