"""A cell trained and scored, in this process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from deploy.ablation.markdown import markdown
from deploy.ablation.results import StudyFolder
from deploy.ablation.run_cell import run_cell
from deploy.ablation.score_table import build_score_table
from deploy.ablation.study import load_study

StudyFile = Callable[..., str]


def test_a_cell_keeps_its_steps_its_scores_and_a_picture(study_file: StudyFile, tmp_path: Path) -> None:
    study, folder = load_study(study_file()), StudyFolder(tmp_path / "out")
    cell = study.cells[0]
    assert folder.result(cell) is None
    run_cell(cell, folder)
    result = folder.result(cell)
    assert result is not None
    assert [line["step"] for line in result.steps] == [1, 2]
    assert all(line["reward_mean"] == pytest.approx(-line["reward_mse"]) for line in result.steps)
    assert "reward_lpips" not in result.steps[0]
    assert result.settings == cell.settings
    assert {"held_out_reward", "held_out_cross_entropy", "fd", "recall"} <= set(result.scores)
    with Image.open(folder.picture(cell)) as picture:
        assert picture.width > 100


def test_without_reward_terms_the_policy_loss_vanishes_and_the_reward_is_scored(
    study_file: StudyFile, tmp_path: Path
) -> None:
    study, folder = load_study(study_file()), StudyFolder(tmp_path / "out")
    cell = study.cells[1]
    run_cell(cell, folder)
    result = folder.result(cell)
    assert result is not None
    assert cell.variant == "prior alone"
    assert all(line["policy_loss"] == 0 and line["loss"] == line["ce_prior"] for line in result.steps)
    assert result.scores["held_out_reward"] == pytest.approx(-result.scores["held_out_mse"])
    assert result.scores["held_out_mse"] > 0


def test_the_base_is_scored_under_several_sampling_seeds_and_a_cell_of_no_effect_equals_it(
    study_file: StudyFile, tmp_path: Path
) -> None:
    file = study_file(variants={"tiny steps": {"learner.lr": 1e-30, "learner.weight_decay": 0}})
    study, folder = load_study(file), StudyFolder(tmp_path / "out")
    for cell in study.base:
        run_cell(cell, folder)
    base = [result.scores for result in map(folder.result, study.base) if result is not None]
    assert len({scores["held_out_mse"] for scores in base}) == 3
    for cell in study.cells:  # the second seed's draws are those of the base's second sampling seed
        run_cell(cell, folder)
        result = folder.result(cell)
        assert result is not None
        assert result.scores == base[cell.index]


def test_the_base_may_be_sampled_otherwise_as_a_variant(study_file: StudyFile, tmp_path: Path) -> None:
    variants = {"as it is": {"sampled": {}}, "cooler": {"sampled": {"temperature": 0.5}}}
    study, folder = load_study(study_file(variants=variants)), StudyFolder(tmp_path / "out")
    for cell in (*study.base, *study.cells):
        run_cell(cell, folder)
    table = build_score_table(study, folder)
    assert [(row.name, row.num_seeds) for row in table.rows] == [("as it is", 2), ("cooler", 2)]
    by_name = {row.name: row.scores["fd"].statistic.values for row in table.rows}
    assert by_name["as it is"] == table.base["fd"].values[:2]
    assert set(by_name["cooler"]).isdisjoint(table.base["fd"].values)
    page = markdown(study, table, {})
    assert "`the base, untrained: sampling.temperature=0.5`" in page


@pytest.mark.ray
@pytest.mark.usefixtures("no_ray")
def test_the_service_trains_a_cell_too(study_file: StudyFile, tmp_path: Path) -> None:
    study, folder = load_study(study_file(runner="train")), StudyFolder(tmp_path / "out")
    cell = study.cells[0]
    run_cell(cell, folder)
    run_cell(replace(cell, runner="local"), folder)
    served, local = folder.result(cell), folder.result(replace(cell, runner="local"))
    assert served is not None
    assert local is not None
    assert served.scores == local.scores
    losses = [line["loss"] for line in local.steps]
    assert [line["loss"] for line in served.steps] == pytest.approx(losses, rel=0, abs=1e-6)
