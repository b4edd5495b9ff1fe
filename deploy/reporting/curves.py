"""Which curves the page draws from metrics.jsonl and evaluations.jsonl."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from deploy.reporting.numbers import finite, is_number
from deploy.reporting.svg_chart import Chart, Series, thinned
from deploy.reporting.term_names import KNOWN, PREFIX, measured_terms
from deploy.reporting.term_names import title as term_title
from deploy.runs.summary_text import SCORES

Line = dict[str, Any]
MIN_STEPS_TO_SMOOTH = 20


def step_charts(steps: Sequence[Line]) -> list[Chart]:
    """Of the training steps. A curve without a number is left out, and one of a term that the run does without."""
    if not steps:
        return []
    xs = [line["step"] for line in steps]
    charts = []
    for title, note, names in [_REWARD, _reward_terms(steps), *_CHARTS]:
        series = [Series(name, [value(line) for line in steps]) for name, value in names.items()]
        series = [each for each in series if _is_shown(each)]
        if len(series) == 1 and title in _NOISY and len(steps) >= MIN_STEPS_TO_SMOOTH:
            series = _smoothed(series[0])
        if series:
            charts.append(thinned(Chart(title, note, xs, series, from_zero=title in _FROM_ZERO)))
    return charts


def score_charts(evaluations: Sequence[Line]) -> list[Chart]:
    """Of the scores during training, where there are more than two: before and after stand in the table."""
    if len(evaluations) < 3:
        return []
    xs = [line["step"] for line in evaluations]
    charts = []
    for key, (title, good) in SCORES.items():
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

_OPTIONAL = {"L1", "KL prior"}  # terms that are 0 throughout a run without them

Curves = tuple[str, str, dict[str, Callable[[Line], Any]]]  # title, note, and each curve's value of a line


def _reward_terms(steps: Sequence[Line]) -> Curves:
    terms = measured_terms(steps)
    note = "unweighted; lower is better" if set(terms) <= KNOWN.keys() else "unweighted"
    return "Reward terms", note, {term_title(name): _key(PREFIX + name) for name in terms}


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
    ("Reward actors", "that were ready", {"actors": _key("num_actors")}),
]
