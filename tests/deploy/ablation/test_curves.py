"""Training curves over seeds."""

from deploy.ablation.curves import training_charts
from deploy.ablation.score_table import Row, ScoreTable


def steps(*errors: float) -> list[dict]:
    return [{"step": index, "reward_mse": error, "ce_prior": 2.0} for index, error in enumerate(errors, start=1)]


def test_a_curve_is_the_mean_over_seeds_and_recent_steps_and_every_variant_keeps_its_colour() -> None:
    rows = (
        Row("prior alone", 1, {}, {}, [steps(0.0, 0.0)]),
        Row("all", 2, {}, {}, [steps(1.0, 3.0), steps(2.0, 6.0)]),
        Row("unfinished", 0, {}, {}),
    )
    mse, cross_entropy = training_charts(ScoreTable((), {}, 0, rows))
    assert (mse.title, cross_entropy.title) == ("MSE", "Cross-entropy")
    assert [(series.name, series.values) for series in mse.series] == [
        ("prior alone", [None, None]),
        ("all", [1.5, 3.0]),
    ]
    assert [look for look, _ in mse.lines] == ["hue-1", "hue-2"]


def test_without_a_finished_cell_there_is_no_curve() -> None:
    assert training_charts(ScoreTable((), {}, 0, (Row("all", 0, {}, {}),))) == []


def test_every_term_that_a_variant_has_is_a_curve_by_its_name() -> None:
    own = [{"step": 1, "reward_mean": -1.0, "reward_std": 0.1, "reward_sharpness": 0.5, "reward_l1": 0.25}]
    former = [{"step": 1, "reward_mse": 0.5, "reward_lpips": 0.0, "reward_l1": 0.0}]
    rows = (Row("own", 1, {}, {}, [own]), Row("former", 1, {}, {}, [former]))
    charts = {chart.title: chart for chart in training_charts(ScoreTable((), {}, 0, rows))}
    assert list(charts) == ["sharpness", "L1", "MSE", "Reward spread"]
    assert [series.values for series in charts["sharpness"].series] == [[0.5], [None]]
    assert [series.values for series in charts["L1"].series] == [[0.25], [None]]
    assert charts["L1"].note.endswith("; lower is better")
    assert charts["sharpness"].note == "of the samples of training images, where the reward holds it"
