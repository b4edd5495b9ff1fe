"""A line chart as inline SVG. Colours and type come from the page's style sheet, so that it follows its theme."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from deploy.reporting.numbers import finite, fixed, is_number, scientific, short

WIDTH, HEIGHT = 352, 178
MIN_LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24
LABEL_GAP = 7  # between a label and the lines
CHARACTER = 8  # as wide as one of a label may be, a minus sign among them, in the widest of the page's fonts
MAX_POINTS = 400
SAME = 1e-6  # of a number: smaller changes are rounding


@dataclass(frozen=True)
class Series:
    name: str
    values: Sequence[float | None]
    is_faint: bool = False  # in the background of the others

    @property
    def last(self) -> str:
        """Its newest number."""
        numbers = finite(self.values)
        return short(numbers[-1] if numbers else None)


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    xs: Sequence[int]
    series: Sequence[Series]
    from_zero: bool = False  # the axis holds zero
    rounding: float = 0.0  # sizes up to this are those of a zero that was computed

    @property
    def constants(self) -> list[tuple[str, str]] | None:
        """Names and values of series of which each keeps one value, but for rounding; None where one changes."""
        if any(self._changes(finite(series.values)) for series in self.series):
            return None
        return [(series.name, self._constant(series)) for series in self.series]

    def _changes(self, numbers: Sequence[float]) -> bool:
        span = max(numbers, default=0) - min(numbers, default=0)
        return span > max(2 * self.rounding, SAME * max(map(abs, numbers), default=0))

    def _constant(self, series: Series) -> str:
        numbers = finite(series.values)
        is_zero = bool(numbers) and max(map(abs, numbers)) <= self.rounding
        return "0 but for rounding" if is_zero and any(numbers) else series.last

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Of the y axis, with their labels."""
        return _ticks(*_y_range(self))

    @property
    def left(self) -> int:
        """Where the lines begin: right of the longest label."""
        return max(MIN_LEFT, LABEL_GAP + CHARACTER * max(map(len, self.ticks[1])))

    @property
    def lines(self) -> list[tuple[str, Series]]:
        """Each series with the name of its look in the style sheet."""
        strong = [series for series in self.series if not series.is_faint]
        hues = {series.name: f"hue-{number}" for number, series in enumerate(strong, start=1)}
        return [(hues.get(series.name, "faint"), series) for series in self.series]

    @property
    def data(self) -> str:
        """For the page's script: what to say at each x."""
        values = [[y if is_number(y) else None for y in series.values] for series in self.series]
        return json.dumps({"xs": list(self.xs), "values": values, "left": self.left, "right": WIDTH - RIGHT})


def thinned(chart: Chart) -> Chart:
    """At most MAX_POINTS points a line: means over neighbouring steps."""
    size = math.ceil(len(chart.xs) / MAX_POINTS)
    if size <= 1:
        return chart
    series = [Series(each.name, _bucket_means(each.values, size), each.is_faint) for each in chart.series]
    note = f"{chart.note}; means of {size} steps".lstrip("; ")
    return replace(chart, note=note, xs=chart.xs[::size], series=series)


def svg(chart: Chart) -> Markup:
    """The drawing alone. Its label says in words what it shows."""
    low, high = _y_range(chart)
    ticks, labels = chart.ticks
    axis = chart.left
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = chart.xs[0], chart.xs[-1]
    x_span, y_span = (last - first) or 1, high - low

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            axis + (x - first) / x_span * (WIDTH - axis - RIGHT),
            HEIGHT - BOTTOM - (y - low) / y_span * (HEIGHT - TOP - BOTTOM),
        )

    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, _words(chart))]
    for tick, label in zip(ticks, labels, strict=True):
        y = place(first, tick)[1]
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(axis, y, WIDTH - RIGHT))
        parts.append(
            Markup('<text x="{}" y="{:.1f}" class="end">{}</text>').format(axis - LABEL_GAP, y + 3.5, label)
        )
    for x, anchor in _x_ticks(first, last):
        left = place(x, low)[0]
        parts.append(Markup('<text x="{:.1f}" y="{}" class="{}">{:,}</text>').format(left, HEIGHT - 7, anchor, x))
    for look, series in chart.lines:
        path = _path([place(x, y) if y is not None else None for x, y in _points(chart, series)])
        parts.append(Markup('<path class="line {}" d="{}"/>').format(look, path))
    cursor = Markup('<path class="cursor" d="M0 {}V{}" visibility="hidden"/></svg>')
    return Markup("").join([*parts, cursor.format(TOP, HEIGHT - BOTTOM)])


def _points(chart: Chart, series: Series) -> list[tuple[int, float | None]]:
    return [(x, y if is_number(y) else None) for x, y in zip(chart.xs, series.values, strict=True)]


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """A stroke through the points, with gaps where there is none; a point alone is a dot."""
    words: list[str] = []
    for index, point in enumerate(points):
        if point is None:
            continue
        starts = index == 0 or points[index - 1] is None
        alone = starts and (index + 1 == len(points) or points[index + 1] is None)
        words.append(f"{'M' if starts else 'L'}{point[0]:.1f} {point[1]:.1f}{'h0.01' if alone else ''}")
    return "".join(words)


def _y_range(chart: Chart) -> tuple[float, float]:
    values = finite(value for series in chart.series for value in series.values)
    low, high = min(values), max(values)
    if chart.from_zero:
        low, high = min(low, 0), max(high, 0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # a flat line
        return (low - abs(low) / 2, high + abs(high) / 2) if low else (0, 1)
    return low, high


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Three to six round numbers around the range, and their labels."""
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(first, last + 1)]
    largest = max(abs(ticks[0]), abs(ticks[-1]))
    if largest < 1e-3 or largest >= 1e5:
        digits = math.floor(math.log10(largest) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return ticks, [scientific(tick, digits) for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return ticks, [fixed(tick, decimals) for tick in ticks]


def _x_ticks(first: int, last: int) -> list[tuple[int, str]]:
    """The first and last step and what is in the middle, with the side that each label is anchored at."""
    if first == last:
        return [(first, "start")]
    middle = [((first + last) // 2, "middle")] if last - first > 1 else []
    return [(first, "start"), *middle, (last, "end")]


def _words(chart: Chart) -> str:
    sentences = []
    for series in chart.series:
        values = finite(series.values)
        if values and not series.is_faint:
            sentences.append(f"{series.name} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{chart.title}, steps {chart.xs[0]} to {chart.xs[-1]}: {'; '.join(sentences)}"


def _bucket_means(values: Sequence[float | None], size: int) -> list[float | None]:
    buckets = [finite(values[start : start + size]) for start in range(0, len(values), size)]
    return [sum(bucket) / len(bucket) if bucket else None for bucket in buckets]
