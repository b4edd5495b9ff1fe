"""Which curves a run has: those of what it measured, and of optional terms only where it has them."""

from typing import Any

from deploy.reporting.curves import step_charts
from deploy.reporting.svg_chart import Chart
from tests.deploy.reporting.conftest import step
from tests.example_facts import learned


def charts(lines: list[dict[str, Any]]) -> dict[str, Chart]:
    return {chart.title: chart for chart in step_charts(lines)}


def names(chart: Chart) -> list[str]:
    return [series.name for series in chart.series]


def test_a_run_shows_all_that_a_step_says_of_the_algorithm() -> None:
    shown = charts([learned(number).metrics() for number in (1, 2, 3)])
    assert list(shown) == [
        "Reward", "Reward terms", "Reward spread", "Loss", "Policy loss", "Gradient norm", "Clip fraction", "KL",
        "Entropy", "Staleness", "Step time", "Groups per second", "Reward actors",
    ]  # fmt: skip
    values = {series.name: series.values[0] for chart in shown.values() for series in chart.series}
    assert values == {
        "reward": -0.5, "MSE": 0.2, "LPIPS": 0.3, "L1": 0.4, "spread": 0.1, "total": 1.5, "cross-entropy": 5.0,
        "KL prior": 0.7, "policy loss": 1.0, "gradient norm": 2.0, "clip fraction": 0.25, "KL": 0.01,
        "entropy": 3.0, "largest": 1, "mean": 0.5, "step": 3.0, "learner wait": 0.5, "groups per second": 4 / 3,
        "actors": 2,
    }  # fmt: skip


NO_L1 = {"mse": 0.2, "lpips": 0.3}


def test_every_number_of_a_step_has_a_curve_or_another_place() -> None:
    read: set[str] = set()

    class Noting(dict):
        def get(self, key: str, default: Any = None) -> Any:
            read.add(key)
            return super().get(key, default)

    line = Noting(learned(1).metrics())
    step_charts([line])
    elsewhere = {"step", "policy_version", "stage_seconds", "actor_stage_seconds"}  # the axis; the table of stages
    in_prometheus_alone = {"groups_buffered", "resident_bytes", "gpu_peak_bytes"}
    events, in_the_file_alone = (
        {"num_flat", "num_quarantined", "is_bad", "is_partial"},
        {"num_dropped", "judge_seconds"},
    )
    assert set(line) - read == elsewhere | in_prometheus_alone | events | in_the_file_alone


def test_a_run_without_l1_and_a_kl_prior_says_nothing_of_them() -> None:
    shown = charts([learned(number, reward_terms=NO_L1, kl_prior=0.0).metrics() for number in (1, 2)])
    assert names(shown["Reward terms"]) == ["MSE", "LPIPS"]
    assert names(shown["Loss"]) == ["total", "cross-entropy"]


def test_a_kl_prior_that_begins_at_zero_is_shown() -> None:
    shown = charts([learned(number, kl_prior=0.1 * number).metrics() for number in range(3)])
    assert shown["Loss"].series[-1].values == [0.0, 0.1, 0.2]


def test_a_kl_that_is_zero_throughout_is_a_constant() -> None:
    shown = charts([learned(number, kl=0.0).metrics() for number in (1, 2)])
    assert shown["KL"].constants == [("KL", "0")]
    assert shown["KL"].from_zero


def test_the_metrics_of_an_older_version_have_their_curves() -> None:
    shown = charts([step(1), step(2)])
    assert names(shown["Loss"]) == ["total", "cross-entropy"]
    assert "KL" not in shown
    assert "Entropy" not in shown


def test_a_number_that_was_not_finite_is_no_term_of_its_own() -> None:
    shown = charts(
        [learned(number, reward_terms=NO_L1, kl_prior=None, entropy=None).metrics() for number in (1, 2)]
    )
    assert names(shown["Reward terms"]) == ["MSE", "LPIPS"]
    assert "Entropy" not in shown


def test_a_noisy_curve_has_its_mean_over_five_steps_without_those_that_were_not_finite() -> None:
    norms = [None, 2.0, 4.0, float("nan"), 6.0, *[8.0] * 15]
    chart = charts([step(number, grad_norm=norm) for number, norm in enumerate(norms, start=1)])["Gradient norm"]
    each, mean = chart.series
    assert (each.name, mean.name) == ("each", "mean of 5")
    assert mean.values[:7] == [None, 2.0, 3.0, 3.0, 4.0, 5.0, 6.5]


def test_what_is_rounding_has_no_curve() -> None:
    lines = [
        learned(number, policy_loss=(-1) ** number * 5e-8, kl=number * 1e-10, loss=1.5 + number * 1e-8).metrics()
        for number in range(1, 31)
    ]
    shown = charts(lines)
    assert shown["Policy loss"].constants == [("policy loss", "0 but for rounding")]
    assert shown["KL"].constants == [("KL", "0 but for rounding")]
    assert shown["Loss"].constants == [("total", "1.5"), ("cross-entropy", "5"), ("KL prior", "0.7")]


def test_what_is_small_and_no_rounding_has_its_curve() -> None:
    lines = [
        learned(number, policy_loss=-1e-6 * number, kl=1e-6 * number, grad_norm=1e-9 * number).metrics()
        for number in (1, 2, 3)
    ]
    shown = charts(lines)
    assert [shown[title].constants for title in ("Policy loss", "KL", "Gradient norm")] == [None, None, None]
