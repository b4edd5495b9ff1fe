"""How Grafana writes a dashboard: panels that know how much room they take, laid out in rows of 24 columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUN = 'run=~"$run"'
"""What selects the runs that are looked at: in the braces of every expression."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """A panel for the expressions of `queries`, each named by its legend."""

    title: str
    queries: Mapping[str, str]  # legend: expression
    width: int
    height: int = 7
    kind: Literal["timeseries", "stat", "bargauge", "state-timeline"] = "timeseries"
    unit: str = "short"
    description: str = ""
    limits: Mapping[float, str] = field(default_factory=dict)  # colours from a value upwards
    bounds: tuple[float | None, float | None] = (0, None)
    instant: bool = False  # what holds now, rather than the newest of the time that is shown
    looks: Json = field(default_factory=dict)  # of the kind: its fieldConfig.custom, or its options
    defaults: Json = field(default_factory=dict)  # more of fieldConfig.defaults
    colours: Mapping[str, str] = field(default_factory=dict)  # of the series whose whole legend fits a pattern


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]
    repeat: str = ""  # a variable: a row for each of its values
    is_open: bool = True


@dataclass(frozen=True)
class Annotation:
    """Where an expression is above zero, a mark on every curve."""

    name: str
    expression: str
    title: str
    colour: str
    is_shown: bool = True
    value_is_time: bool = False  # milliseconds since 1970


def dashboard(uid: str, title: str, rows: Sequence[Row], annotations: Sequence[Annotation], runs: str) -> Json:
    """The dashboard's JSON; `runs` is a metric that each run has."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["vapi"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "10s",
        "graphTooltip": 1,  # one cursor for all
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_datasource_variable(), _run_variable(runs)]},
        "annotations": {"list": [_annotation(each) for each in annotations]},
        "panels": list(_laid_out(rows)),
    }


def _datasource_variable() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _run_variable(metric: str) -> Json:
    return {
        "name": "run",
        "label": "run",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({metric}, run)", "refId": "runs"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": DATASOURCE,
        "enable": annotation.is_shown,
        "iconColor": annotation.colour,
        "expr": annotation.expression,
        "step": "15s",
        "titleFormat": annotation.title,
        "tagKeys": "run",
        "useValueForTime": annotation.value_is_time,
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[Json]:
    """Panels from left to right, and on the next line where one has no room; a row that is shut holds its own."""
    y, number = 0, 0
    for row in rows:
        number += 1
        head: Json = {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": not row.is_open,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        if row.repeat:
            head["repeat"] = row.repeat
        panels, bottom = [], y + 1
        x, top = 0, bottom
        for panel in row.panels:
            number += 1
            if x + panel.width > COLUMNS:
                x, top = 0, bottom
            place = {"h": panel.height, "w": panel.width, "x": x, "y": top}
            panels.append(_panel(panel, number, place))
            x, bottom = x + panel.width, max(bottom, top + panel.height)
        y = bottom
        if row.is_open:
            yield from (head, *panels)
        else:
            yield head | {"panels": panels}


def _panel(panel: Panel, number: int, place: Json) -> Json:
    least, most = panel.bounds
    defaults: Json = {"unit": panel.unit, "thresholds": _thresholds(panel), "custom": {}} | panel.defaults
    defaults |= {name: bound for name, bound in (("min", least), ("max", most)) if bound is not None}
    options: Json = {}
    if panel.kind == "timeseries":
        limits = {"thresholdsStyle": {"mode": "line+area"}} if panel.limits else {}
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"} | limits | panel.looks
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0} | panel.looks
        options = {"showValue": "never", "legend": {"showLegend": False}}
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}} | panel.looks
    described = {"description": panel.description} if panel.description else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        **described,
        "gridPos": place,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": [_painted(*each) for each in panel.colours.items()]},
        "targets": [_target(panel, index, *query) for index, query in enumerate(panel.queries.items())],
        "options": options,
    }


def _thresholds(panel: Panel) -> Json:
    base = "transparent" if panel.kind == "timeseries" else "green"
    steps: list[Json] = [{"color": base, "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in panel.limits.items()]
    return {"mode": "absolute", "steps": steps}


def _painted(pattern: str, colour: str) -> Json:
    paint = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byRegexp", "options": f"/^{pattern}$/"}, "properties": [paint]}


def _target(panel: Panel, index: int, legend: str, expression: str) -> Json:
    target = {"refId": "ABCDEFGHIJKL"[index], "expr": expression, "legendFormat": legend}
    return target | ({"instant": True, "range": False} if panel.instant else {})
