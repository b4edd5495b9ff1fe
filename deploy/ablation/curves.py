"""Training curves of all variants, each the mean over its finished seeds."""

from collections.abc import Sequence
from statistics import fmean

from deploy.ablation.score_table import Row, ScoreTable
from deploy.reporting.numbers import finite
from deploy.reporting.svg_chart import Chart, Series, thinned
from deploy.reporting.term_names import PREFIX, direction, measured_terms
from deploy.reporting.term_names import title as term_title
from deploy.runs.records import better_of

CHARTS = {
    "ce_prior": ("Cross-entropy", "nats a token; lower is better"),
    "entropy": ("Entropy", "nats a token"),
    "reward_std": ("Reward spread", "standard deviation in a group, by the variant's own weights"),
    "grad_norm": ("Gradient norm", "before clipping"),
}
WINDOW = 5


def training_charts(table: ScoreTable) -> list[Chart]:
    """Charts of the means of up to WINDOW recent steps.

    A variant that does not measure a quantity has no line but keeps its place, so that colours stay the same.
    """
    rows = [row for row in table.rows if row.num_seeds]
    length = max((len(steps) for row in rows for steps in row.steps), default=0)
    charts = []
    for key, (name, note) in (_term_charts(rows) | CHARTS).items():
        series = [Series(row.name, _smoothed(_means(row, key, length))) for row in rows]
        series = [each if _is_measured(each) else Series(each.name, [None] * length) for each in series]
        if any(map(_is_measured, series)):
            charts.append(thinned(Chart(name, note, list(range(1, length + 1)), series)))
    return charts


def _term_charts(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Of the terms that any variant has, by their keys."""
    lines = [line for row in rows for steps in row.steps for line in steps]
    better, note = better_of(lines), "of the samples of training images, where the reward holds it"
    charts = {}
    for name in measured_terms(lines):
        good = direction(name, better)
        charts[PREFIX + name] = (term_title(name), f"{note}; {good} is better" if good else note)
    return charts


def _is_measured(series: Series) -> bool:
    """What is not computed is absent, or 0 at every step."""
    return any(finite(series.values))


def _means(row: Row, key: str, length: int) -> list[float | None]:
    means: list[float | None] = []
    for index in range(length):
        values = finite(steps[index].get(key) for steps in row.steps if index < len(steps))
        means.append(fmean(values) if values else None)
    return means


def _smoothed(values: list[float | None]) -> list[float | None]:
    recent = [finite(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)]
    return [fmean(each) if each else None for each in recent]
