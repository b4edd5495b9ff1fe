"""Which curves the page draws from metrics.jsonl and evaluations.jsonl."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from deploy.reporting.numbers import finite, is_number
from deploy.reporting.svg_chart import Chart, Series, thinned
from deploy.reporting.term_names import PREFIX, direction, measured_terms
from deploy.reporting.term_names import title as term_title
from deploy.runs.records import better_of
from deploy.runs.summary_text import SCORES, own_scores

Line = dict[str, Any]
MIN_STEPS_TO_SMOOTH = 20


def step_charts(steps: Sequence[Line]) -> list[Chart]:
    """Of the training steps. A curve without a number is left out, and one of a term that the run does without."""
    if not steps:
        return []
    xs = [line["step"] for line in steps]
    charts = []
    for title, note, names in [_REWARD, *_reward_terms(steps), *_CHARTS]:
        series = [Series(name, [value(line) for line in steps]) for name, value in names.items()]
        series = [each for each in series if _is_shown(each)]
        if not series:
            continue
        chart = Chart(title, note, xs, series, title in _FROM_ZERO, _ROUNDING.get(title, 0.0))
        changes = chart.constants is None
        if changes and len(series) == 1 and title in _NOISY and len(steps) >= MIN_STEPS_TO_SMOOTH:
            chart = replace(chart, series=_smoothed(series[0]))
        charts.append(thinned(chart))
    return charts


def score_charts(evaluations: Sequence[Line], better: Mapping[str, str]) -> list[Chart]:
    """Of the scores during training, where there are more than two: before and after stand in the table.

    `better` is "higher" or "lower" of the terms of somebody's own, by their names.
    """
    if len(evaluations) < 3:
        return []
    xs = [line["step"] for line in evaluations]
    charts = []
    for key, (title, good) in (SCORES | own_scores(better)).items():
        values = [line.get(key) for line in evaluations]
        if finite(values):
            charts.append(Chart(title[:1].upper() + title[1:], f"{good} is better", xs, [Series(title, values)]))
    return charts


def groups_per_second(line: Line) -> float | None:
    return _ratio(line.get("num_groups"), line.get("step_seconds"))


def _is_shown(series: Series) -> bool:
    numbers = finite(series.values)
    return any(numbers) if series.name in _OPTIONAL else bool(numbers)


def _key(name: str) -> Callable[[Line], Any]:
    return lambda line: line.get(name)


def _ratio(above: Any, below: Any) -> float | None:
    return above / below if is_number(above) and is_number(below) and below > 0 else None


def _smoothed(series: Series) -> list[Series]:
    """The line over its recent steps, before the line itself."""
    window = max(5, len(series.values) // 20)
    numbers = [value if value is not None and is_number(value) else 0.0 for value in series.values]
    sums = [0.0, *accumulate(numbers)]
    counts = [0, *accumulate(int(is_number(value)) for value in series.values)]
    means: list[float | None] = []
    for end in range(1, len(series.values) + 1):
        start = max(0, end - window)
        count = counts[end] - counts[start]
        means.append((sums[end] - sums[start]) / count if count else None)
    return [Series("each", series.values, is_faint=True), Series(f"mean of {window}", means)]


_NOISY = {"Reward", "Policy loss", "Gradient norm", "KL", "Groups per second", "Reward spread"}

_FROM_ZERO = {
    "Clip fraction",
    "KL",
    "Staleness",
    "Step time",
    "Groups per second",
    "Reward actors",
    "Reward terms",
}

_OPTIONAL = {"L1", "KL prior", "learner wait", "actors"}
"""What is 0 throughout a run without it: terms, and the actors of a run in one process."""

_ROUNDING = {"Policy loss": 6e-7, "KL": 1.2e-7}
"""What float32 makes of them where they are 0 by design, without staleness: the steps of numbers near 1, times the
largest advantage."""

Curves = tuple[str, str, dict[str, Callable[[Line], Any]]]  # title, note, and each curve's value of a line


def _reward_terms(steps: Sequence[Line]) -> list[Curves]:
    """Those of a direction together."""
    better = better_of(steps)
    charts: dict[str, dict[str, Callable[[Line], Any]]] = {}
    for name in measured_terms(steps):
        charts.setdefault(direction(name, better), {})[term_title(name)] = _key(PREFIX + name)
    return [
        ("Reward terms", f"unweighted; {good} is better" if good else "unweighted", names)
        for good, names in charts.items()
    ]


_REWARD: Curves = ("Reward", "of training images; higher is better", {"reward": _key("reward_mean")})

_CHARTS: list[Curves] = [
    ("Reward spread", "standard deviation in a group", {"spread": _key("reward_std")}),
    (
        "Loss",
        "",
        {"total": _key("loss"), "cross-entropy": _key("ce_prior"), "KL prior": _key("kl_prior")},
    ),
    ("Policy loss", "", {"policy loss": _key("policy_loss")}),
    ("Gradient norm", "before clipping", {"gradient norm": _key("grad_norm")}),
    ("Clip fraction", "share of tokens", {"clip fraction": _key("clip_fraction")}),
    ("KL", "of the behaviour policy and the policy, nats per token", {"KL": _key("kl")}),
    ("Entropy", "of the policy, nats per token", {"entropy": _key("entropy")}),
    (
        "Staleness",
        "policy versions behind",
        {"largest": _key("staleness_max"), "mean": _key("staleness_mean")},
    ),
    (
        "Step time",
        "seconds",
        {"step": _key("step_seconds"), "learner wait": _key("wait_seconds")},
    ),
    ("Groups per second", "", {"groups per second": groups_per_second}),
    (
        "Reward actors",
        "that were ready",
        {"actors": _key("num_actors"), "judge actors": lambda line: line.get("num_judges") or None},
    ),
]
