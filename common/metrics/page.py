"""`python -m common.metrics.page` writes docs/metrics.md, the readable catalogue."""

from itertools import groupby

from common.metrics.catalogue import CATALOGUE, Metric
from common.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "metrics.md"

_HEAD = """# Metrics

Every Prometheus metric of a run, at the driver's `metrics.host:metrics.port`. Made from
[`common/metrics/catalogue.py`](../common/metrics/catalogue.py) by `python -m common.metrics.page`: edit it there.
[monitoring.md](monitoring.md) says how to scrape, look at and be warned by them.

Every series has the label `run` beside its own: the name of the run's folder. A histogram NAME has the series
`NAME_bucket`, `NAME_sum` and `NAME_count`. Labelled series exist from the start, scores excepted: what has not
happened reads as 0.
"""


def page() -> str:
    """The page's Markdown: one table per subject, in the catalogue's order."""
    parts = [_HEAD.rstrip("\n")]
    for subject, metrics in groupby(CATALOGUE, key=_subject):
        parts += [
            f"\n## {subject.capitalize()}\n",
            "| metric | kind | label | meaning |",
            "| --- | --- | --- | --- |",
        ]
        parts += [_row(metric) for metric in metrics]
    return "\n".join(parts) + "\n"


def _subject(metric: Metric) -> str:
    return metric.name.split("_")[1]


def _row(metric: Metric) -> str:
    label = f"`{metric.label}`: {', '.join(metric.values)}" if metric.label else ""
    return f"| `{metric.name}` | {metric.kind} | {label} | {metric.help} |"


if __name__ == "__main__":
    PAGE.write_text(page())
