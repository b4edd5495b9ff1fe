"""One score of all variants as inline SVG: one dot per seed, a line at the mean, the base's noise as a band."""

from dataclasses import dataclass

from markupsafe import Markup

from deploy.ablation.score_table import ScoreTable
from deploy.reporting.numbers import fixed

WIDTH, LEFT, MAX_LEFT, RIGHT, TOP, ROW, AXIS = 352, 140, 240, 14, 6, 22, 20
NAME_GAP = 8  # between a variant's name and its dots
CHARACTER = 7  # as wide as one of a name may be
MARGIN = 0.06  # of the range, on either side


@dataclass(frozen=True)
class Plot:
    title: str
    good: str  # whether higher or lower is better
    height: int
    drawing: Markup  # the content of an <svg> of width WIDTH

    @property
    def label(self) -> str:
        return f"{self.title} of each variant, a dot a seed"


def score_plots(table: ScoreTable) -> list[Plot]:
    """One plot per score, without scores that no variant has."""
    plots = [_plot(table, key, *title) for key, title in zip(table.columns, table.titles, strict=True)]
    return [plot for plot in plots if plot]


def _plot(table: ScoreTable, key: str, title: str, good: str) -> Plot | None:
    variants = [(row.name, row.scores[key].statistic.values) for row in table.rows]
    band = table.base[key].values if table.base else ()
    values = [value for _, each in variants for value in each] + list(band)
    if not any(each for _, each in variants):
        return None
    left = min(max(LEFT, NAME_GAP + CHARACTER * max(len(name) for name, _ in variants)), MAX_LEFT)
    span = (max(values) - min(values)) or abs(values[0]) or 1.0
    low, high = min(values) - MARGIN * span, max(values) + MARGIN * span

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    bottom = TOP + ROW * len(variants)
    parts = []
    if band:
        start, end = across(min(band)), across(max(band))
        rectangle = '<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>'
        parts.append(Markup(rectangle).format(start, TOP, max(end - start, 1), bottom - TOP))
    for index, (name, each) in enumerate(variants):
        parts += _variant(name, left, [across(value) for value in each], TOP + ROW * index + ROW / 2)
    for value, anchor in ((min(values), "start"), (max(values), "end")):
        text = Markup('<text x="{:.1f}" y="{}" class="{}">{}</text>')
        parts.append(text.format(across(value), bottom + 14, anchor, fixed(value, 4 if span < 1 else 2)))
    return Plot(title, good, bottom + AXIS, Markup("").join(parts))


def _variant(name: str, left: int, xs: list[float], y: float) -> list[Markup]:
    most = (left - NAME_GAP) // CHARACTER
    shown = name if len(name) <= most else f"{name[: most - 1]}…"
    parts = [
        Markup('<text x="{}" y="{:.1f}" class="end">{}</text>').format(left - NAME_GAP, y + 4, shown),
        Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(left, y, WIDTH - RIGHT),
    ]
    if xs:
        parts.append(Markup('<path class="mean" d="M{:.1f} {:.1f}v12"/>').format(sum(xs) / len(xs), y - 6))
    return parts + [Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.2"/>').format(x, y) for x in xs]
