"""What a finished run says."""

from pathlib import Path
from typing import Any

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.runs.summary_text import SCORES, summary_text

SUMMARY: dict[str, Any] = {"status": "succeeded", "steps": 60, "groups_learned": 1919, "images_skipped": 0}


def scores(value: float) -> dict[str, float]:
    return dict.fromkeys(SCORES, value)


def evaluated() -> dict[str, Any]:
    """A run that gained 0.25 in every score, where the noise is 0.05."""
    evaluation = {"before": scores(0.5), "after": scores(0.75), "noise": scores(0.05), "picture": "runs/x/b.png"}
    return SUMMARY | {"evaluation": evaluation}


def test_a_run_without_evaluation_says_what_it_did_and_where(recipe: Recipe) -> None:
    assert summary_text(recipe, SUMMARY | {"evaluation": None}, Path("runs/x"), 312.4) == (
        "succeeded after 60 steps on 1919 images, in 5 min 12 s\nrun folder  runs/x"
    )


def test_images_that_were_skipped_are_mentioned(recipe: Recipe) -> None:
    text = summary_text(recipe, SUMMARY | {"images_skipped": 3}, Path("runs/x"), 312.4)
    assert "3 images were left out; events.jsonl names them, and why" in text
    assert "left out" not in summary_text(recipe, SUMMARY, Path("runs/x"), 312.4)


def test_scores_stand_in_a_table_and_gains_count_in_the_good_direction(recipe: Recipe) -> None:
    lines = summary_text(recipe, evaluated(), Path("runs/x"), 312.4).splitlines()
    assert lines[2].split() == ["before", "after", "gain", "noise"]
    table = lines[2 : 3 + len(SCORES)]
    assert len({len(row) for row in table}) == 1, "columns stand below each other"
    rows = {row[:46].strip(): row[46:].split() for row in table[1:]}
    assert rows["held-out reward (higher is better)"] == ["0.5000", "0.7500", "+0.2500", "0.0500"]
    assert rows["FD over classifier features (lower is better)"] == ["0.5000", "0.7500", "-0.2500", "0.0500"]
    assert len(rows) == len(SCORES)
    assert lines[-2:] == ["picture     runs/x/b.png", "run folder  runs/x"]


def test_yardsticks_get_a_column_each_and_a_word_of_explanation(recipe: Recipe) -> None:
    summary = evaluated()
    without = summary_text(recipe, summary, Path("runs/x"), 312.4)
    assert "CE alone" not in without
    summary["evaluation"] |= {"before_at_compare_temperature": scores(0.6), "prior_alone": scores(0.7)}
    summary["evaluation"] |= {"prior_alone_as_long": scores(0.8), "as_long_steps": 150}
    compared = with_changes(recipe, {"evaluation.compare_temperature": 0.8, "evaluation.compare_guidance": 2})
    lines = summary_text(compared, summary, Path("runs/x"), 312.4).splitlines()
    assert lines[2].split() == ["before", "after", "gain", "noise", "T=0.8", "CE", "alone", "CE", "as", "long"]
    assert lines[3].split()[-3:] == ["0.6000", "0.7000", "0.8000"]
    assert "T=0.8: the base sampled cooler" in lines
    assert "CE as long: as much time of it, 150 steps" in lines
    summary["evaluation"] |= {"before_at_compare_guidance": scores(0.65)}
    lines = summary_text(compared, summary, Path("runs/x"), 312.4).splitlines()
    assert lines[3].split()[-4:] == ["0.6000", "0.6500", "0.7000", "0.8000"]
    assert "cfg=2: the base sampled with guidance" in lines


def test_scores_that_were_not_taken_are_left_out(recipe: Recipe) -> None:
    summary = evaluated()
    for column in ("before", "after", "noise"):
        del summary["evaluation"][column]["fid"]
    text = summary_text(recipe, summary, Path("runs/x"), 312.4)
    assert "FID" not in text
    assert "FD over classifier features" in text
