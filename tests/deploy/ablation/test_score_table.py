"""The numbers of the table, on results made up by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.ablation.results import CellResult, StudyFolder
from deploy.ablation.score_table import ScoreTable, Statistic, build_score_table, title
from deploy.ablation.study import Cell, load_study

StudyFile = Callable[..., str]


def write(folder: StudyFolder, cell: Cell, reward: float, fd: float | None) -> None:
    steps = [{"step": 1, "reward_mean": -9.0}, {"step": 2, "reward_mean": reward}]
    scores = {"held_out_reward": reward, "fd": fd}
    folder.write(cell, CellResult(cell.settings, 60.0, steps, scores))


@pytest.fixture
def table(study_file: StudyFile, tmp_path: Path) -> ScoreTable:
    """Both seeds of `all`, one of `prior alone`, and a base whose rewards under its two seeds are 2 apart."""
    study, folder = load_study(study_file()), StudyFolder(tmp_path / "out")
    write(folder, study.base[0], -5.0, 10.0)
    write(folder, study.base[1], -7.0, 10.0)
    write(folder, study.cells[0], -1.0, 12.0)
    write(folder, study.cells[2], -3.0, None)
    write(folder, study.cells[1], -4.0, 10.0)
    return build_score_table(study, folder)


def test_a_row_is_the_mean_and_the_standard_deviation_over_finished_seeds(table: ScoreTable) -> None:
    everything, prior = table.rows
    assert (everything.num_seeds, prior.num_seeds) == (2, 1)
    reward = everything.scores["held_out_reward"].statistic
    assert (reward.mean, reward.std, reward.text) == (-2.0, pytest.approx(2**0.5), "−2.000 ± 1.414")
    assert prior.scores["held_out_reward"].statistic.text == "−4.000"


def test_the_noise_floor_is_the_spread_of_the_base(table: ScoreTable) -> None:
    assert table.num_base_seeds == 2
    assert table.base["held_out_reward"].mean == -6.0
    assert table.noise_text("held_out_reward") == "2"


def test_a_gain_is_larger_than_the_noise_and_a_score_that_is_no_number_counts_not(table: ScoreTable) -> None:
    everything, prior = table.rows
    assert everything.scores["held_out_reward"].verdict == "gain"  # 4 better under either seed
    assert prior.scores["held_out_reward"].verdict == ""  # 1 better
    assert everything.scores["fd"].statistic.values == (12.0,)
    assert everything.scores["fd"].verdict == "loss"
    assert prior.scores["fd"].verdict == ""


def test_a_difference_that_its_seeds_do_not_share_is_no_gain(study_file: StudyFile, tmp_path: Path) -> None:
    study, folder = load_study(study_file()), StudyFolder(tmp_path / "out")
    for cell in study.base:
        write(folder, cell, -5.0, 10.0)
    for position, reward in ((0, -4.9), (2, 5.0), (1, -4.9), (3, -4.8)):
        write(folder, study.cells[position], reward, 10.0)
    disagreeing, agreeing = build_score_table(study, folder).rows
    assert disagreeing.scores["held_out_reward"].verdict == ""  # 0.1 and 10 better
    assert agreeing.scores["held_out_reward"].verdict == "gain"  # 0.1 and 0.2 better


def test_training_metrics_are_those_of_the_last_step(table: ScoreTable) -> None:
    assert table.rows[0].last_step["reward_mean"].values == (-1.0, -3.0)
    assert table.rows[0].last_step["seconds"].mean == 60.0


def test_without_results_every_number_is_missing(study_file: StudyFile, tmp_path: Path) -> None:
    table = build_score_table(load_study(study_file()), StudyFolder(tmp_path / "nothing"))
    assert table.base == {}
    assert [row.scores["fd"].statistic.text for row in table.rows] == ["–", "–"]


def test_numbers_show_a_thousandth_of_their_size() -> None:
    assert [Statistic((value,)).text for value in (123.456, 12.3456, 1.23456, 0.123456, 0.0123456, 0.0)] == [
        "123.5",
        "12.35",
        "1.235",
        "0.1235",
        "0.01235",
        "0",
    ]


def test_scores_of_the_known_terms_say_which_is_better_and_others_are_called_by_their_names() -> None:
    assert [title(f"held_out_{name}") for name in ("mse", "lpips", "l1", "perplexity", "sharp_edges")] == [
        ("held-out MSE", "lower"),
        ("held-out LPIPS", "lower"),
        ("held-out L1", "lower"),
        ("held-out perplexity", "lower"),
        ("held-out sharp_edges", ""),
    ]
    assert (title("fd"), title("some_score")) == (("FD over classifier features", "lower"), ("some score", ""))
