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
