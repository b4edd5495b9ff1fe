"""The numbers of the table, on results made up by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.ablation.results import CellResult, StudyFolder
from deploy.ablation.score_table import ScoreTable, Statistic, build_score_table, title
from deploy.ablation.study import Cell, load_study
from deploy.ablation.terminal import table_text

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
    write(folder, study.base[1], -7.0, 10.5)
    write(folder, study.cells[0], -1.0, 12.0)
    write(folder, study.cells[2], -3.0, 12.5)
    write(folder, study.cells[1], -1.0, None)
    return build_score_table(study, folder)


def test_a_row_is_the_mean_and_the_standard_deviation_over_finished_seeds(table: ScoreTable) -> None:
    everything, prior = table.rows
    assert (everything.num_seeds, prior.num_seeds) == (2, 1)
    reward = everything.scores["held_out_reward"].statistic
    assert (reward.mean, reward.std, reward.text) == (-2.0, pytest.approx(2**0.5), "−2.000 ± 1.414")
    assert prior.scores["held_out_reward"].statistic.text == "−1.000"


def test_the_noise_floor_is_the_spread_of_the_base(table: ScoreTable) -> None:
    assert table.num_base_seeds == 2
    assert table.base["held_out_reward"].mean == -6.0
    assert table.noise_text("held_out_reward") == "2"


def test_a_gain_is_larger_than_the_noise_under_two_seeds_or_more(table: ScoreTable) -> None:
    everything, prior = table.rows
    assert everything.scores["held_out_reward"].verdict == "gain"  # 4 better under either seed
    assert everything.scores["fd"].verdict == "loss"
    assert prior.scores["held_out_reward"].verdict == ""  # 4 better under its only seed
    assert prior.scores["fd"].statistic.values == ()


def test_a_base_scored_once_has_no_noise_to_be_above(study_file: StudyFile, tmp_path: Path) -> None:
    study, folder = load_study(study_file()), StudyFolder(tmp_path / "out")
    write(folder, study.base[0], -5.0, 10.0)
    for position in (0, 2):
        write(folder, study.cells[position], -1.0, None)
    scores = build_score_table(study, folder).rows[0].scores
    assert (scores["held_out_reward"].verdict, scores["fd"].verdict) == ("", "")


def test_the_terminal_shows_the_same_table(table: ScoreTable, study_file: StudyFile) -> None:
    assert table_text(load_study(study_file()), table).splitlines() == [
        "             seeds  held-out reward ↑  FD over classifier features ↓",
        "base             2   −6.000 ± 1.414                   10.25 ± 0.35  ",
        "noise floor                       2                            0.5  ",
        "all              2   −2.000 ± 1.414 ▲                 12.25 ± 0.35 ▼",
        "prior alone      1           −1.000                              –  ",
        "",
        "▲ better and ▼ worse than the base, beyond its noise and the spread over two seeds or more",
        "3 of 4 cells are finished: 1 to 2 of 2 seeds a variant.",
    ]


def test_a_term_of_ones_own_has_the_direction_that_it_said(study_file: StudyFile, tmp_path: Path) -> None:
    study = load_study(study_file(scores=["held_out_sharpness", "held_out_blur"]))
    folder = StudyFolder(tmp_path / "out")
    for index, cell in enumerate((*study.base[:2], study.cells[0], study.cells[2])):
        steps = [{"step": 1, "better": {"sharpness": "higher", "blur": "lower"}}] if cell.recipe else []
        value = 1.0 if cell.recipe else 0.1 * index
        scores = {"held_out_sharpness": value, "held_out_blur": value}
        folder.write(cell, CellResult(cell.settings, 1.0, steps, scores))
    table = build_score_table(study, folder)
    assert table.titles == [("held-out sharpness", "higher"), ("held-out blur", "lower")]
    assert [score.verdict for score in table.rows[0].scores.values()] == ["gain", "loss"]


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
    assert [title(f"held_out_{name}", {}) for name in ("mse", "lpips", "l1", "perplexity", "sharp_edges")] == [
        ("held-out MSE", "lower"),
        ("held-out LPIPS", "lower"),
        ("held-out L1", "lower"),
        ("held-out perplexity", "lower"),
        ("held-out sharp_edges", ""),
    ]
    assert (title("fd", {}), title("some_score", {})) == (
        ("FD over classifier features", "lower"),
        ("some score", ""),
    )
