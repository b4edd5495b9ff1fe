"""The Grafana dashboard: its layout, and that its expressions say what their panels claim."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.metrics.catalogue import EVENTS, STATES, VERSIONS
from common.paths import CHECKOUT
from deploy.monitoring.files import files
from deploy.monitoring.grafana import Panel, Row, dashboard
from deploy.runs.wording import WORDINGS

DASHBOARD = json.loads((CHECKOUT / "deploy" / "grafana" / "dashboard.json").read_text())
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def panels(tree: dict[str, Any] = DASHBOARD) -> Iterator[dict[str, Any]]:
    """Those of rows that are shut, too; rows themselves are none."""
    for panel in tree["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def panel(title: str) -> dict[str, Any]:
    return next(each for each in panels() if each["title"] == title)


def expressions() -> dict[str, str]:
    """Of panels and annotations, with all runs in place of the variable."""
    queries = {
        f"{each['title']} {query['refId']}": query["expr"] for each in panels() for query in each["targets"]
    }
    queries |= {each["name"]: each["expr"] for each in DASHBOARD["annotations"]["list"]}
    return {name: expression.replace("$run", ".*") for name, expression in queries.items()}


def promtool(folder: Path, command: str, kind: str, content: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    path = folder / "promtool.yml"
    path.write_text(yaml.safe_dump(content))
    return subprocess.run(["promtool", command, kind, path.name], cwd=folder, capture_output=True, text=True)


def test_the_files_are_what_the_code_makes() -> None:
    stale = [path.name for path, text in files().items() if path.read_text() != text]
    assert stale == [], "run python -m deploy.monitoring.files"


def test_the_first_row_is_what_a_person_on_call_asks_once_for_each_run() -> None:
    row, *first = DASHBOARD["panels"][:6]
    assert (row["type"], row["repeat"]) == ("row", "run")
    assert [each["title"] for each in first] == ["State", "Step", "Time left", "Reward", "Alerts"]
    assert {each["type"] for each in first} == {"stat"}
    state, *_, alerts = first
    assert {override["matcher"]["options"] for override in state["fieldConfig"]["overrides"]} == {
        f"/^{each}$/" for each in (*STATES, "silent")
    }
    assert state["targets"][0]["instant"]  # of a driver that is gone nothing is left over
    assert alerts["fieldConfig"]["defaults"]["thresholds"]["steps"][1] == {"color": "red", "value": 1}


def test_panels_fill_their_lines_and_lie_on_no_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for each in (*DASHBOARD["panels"], *panels()):
        place = each["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), each["title"]) == each["title"]
    assert {x for x, _ in taken} == set(range(24))
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)
    assert len({each["id"] for each in (*DASHBOARD["panels"], *panels())}) == len(list(panels())) + 8


def test_a_panel_that_has_no_room_goes_to_the_next_line() -> None:
    def at(panel: dict[str, Any]) -> tuple[int, int]:
        return panel["gridPos"]["x"], panel["gridPos"]["y"]

    row = Row("r", [Panel("a", {}, 16, 5), Panel("b", {}, 8, 5), Panel("c", {}, 12), Panel("d", {}, 16)])
    places = {each["title"]: at(each) for each in dashboard("u", "t", [row], [], "m")["panels"]}
    assert places == {"r": (0, 0), "a": (0, 1), "b": (16, 1), "c": (0, 6), "d": (0, 13)}


def test_whoever_imports_it_says_which_prometheus_and_every_query_which_runs() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    asking = [*panels(), *DASHBOARD["annotations"]["list"], variables["run"]]
    assert {each["datasource"]["uid"] for each in asking} == {"${datasource}"}
    for name, expression in expressions().items():
        series = re.findall(r"\b(?:vapi[_:]|ALERTS)[\w:]*(\{[^}]*\})?", expression)
        assert series, name
        assert all('run=~".*"' in selector for selector in series), name


def test_a_curve_with_an_alert_shows_where_it_is_raised() -> None:
    rules = (CHECKOUT / "deploy" / "prometheus" / "alert_rules.yml").read_text()
    shown = {}
    for each in panels():
        steps = each["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if each["type"] == "timeseries" and len(steps) > 1 and "increase" not in each["targets"][0]["expr"]:
            shown[each["targets"][0]["expr"].partition("{")[0]] = steps[1]["value"]
    assert shown == {
        "vapi:learner_wait:ratio5m": 0.9,
        "vapi:checkpoint_age:seconds": 3600,
        "vapi:dropped_groups:ratio5m": 0.05,
    }
    assert all(f"{series} > {value:g}" in rules for series, value in shown.items())


def test_all_that_happens_is_marked_but_for_what_is_routine() -> None:
    marked = [
        event
        for each in DASHBOARD["annotations"]["list"]
        for events in re.findall(r'event=~"([^"]*)"', each["expr"])
        for event in events.split("|")
    ]
    routine = {"ticket_delivered", "step_learned", "published", "picture_saved"}
    assert sorted(marked) == sorted(set(EVENTS) - routine)
    assert {name for name, wording in WORDINGS.items() if wording.is_routine} == {*routine, "checkpoint"}


@needs_promtool
def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"vapi:expression:{n}", "expr": each} for n, each in enumerate(expressions().values())]
    assert len(rules) > 60
    content = {"groups": [{"name": "dashboard", "rules": rules}]}
    result = promtool(tmp_path, "check", "rules", content)
    assert result.returncode == 0, result.stderr
    rules[0]["expr"] += "}"
    assert promtool(tmp_path, "check", "rules", content).returncode == 1


@needs_promtool
def test_tickets_by_staleness_are_told_by_difference(tmp_path: Path) -> None:
    """Of 60 tickets 24 were on policy, 12 one version behind, 6 seven or eight, and 18 more than sixteen."""
    up_to = {version: 24 + 12 * (version >= 1) + 6 * (version >= 8) for version in VERSIONS}
    counts = {f"{version}.0": count for version, count in up_to.items()} | {"+Inf": 60}
    series = [
        {
            "series": f'vapi_buffer_staleness_versions_bucket{{run="a",le="{bound}"}}',
            "values": f"0+{count / 5:g}x10",
        }
        for bound, count in counts.items()
    ]
    queries = {
        query["legendFormat"]: query["expr"]
        for query in panel("Tickets learned in 5 minutes, by staleness")["targets"]
    }
    assert list(queries) == ["0", "1", "2", "3", "4", "5 to 6", "7 to 8", "9 to 12", "13 to 16", "over 16"]
    tickets = dict.fromkeys(queries, 0) | {"0": 24, "1": 12, "7 to 8": 6, "over 16": 18}
    tests = [
        {
            "expr": f"round({queries[name].replace('$run', '.*')})",
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": count}],
        }
        for name, count in tickets.items()
    ]
    content = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}
    result = promtool(tmp_path, "test", "rules", content)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_the_tile_of_the_state_tells_a_run_that_has_ended_from_a_driver_that_is_silent(tmp_path: Path) -> None:
    expression = panel("State")["targets"][0]["expr"]
    shown = {"at_work": ("training", 1), "over": ("succeeded", 1), "killed": ("silent", 0)}
    values = {
        "at_work": {"training": "1x30", "succeeded": "0x30"},
        "over": {"training": "1x4 0 stale", "succeeded": "0x4 1 stale"},
        "killed": {"training": "1x5 stale", "succeeded": "0x5 stale"},
    }
    series = [
        {"series": f'vapi_driver_state{{run="{run}",state="{state}"}}', "values": each}
        for run, states in values.items()
        for state, each in states.items()
    ]
    tests = []
    for run, (state, value) in shown.items():
        labels = f'vapi_driver_state{{run="{run}",state="{state}"}}' if value else '{state="silent"}'
        expected = [{"labels": labels, "value": value}]
        tests.append({"expr": expression.replace("$run", run), "eval_time": "20m", "exp_samples": expected})
    content = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}
    result = promtool(tmp_path, "test", "rules", content)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_the_tile_of_alerts_names_those_of_the_run_and_is_never_empty(tmp_path: Path) -> None:
    expression = panel("Alerts")["targets"][0]["expr"]
    firing = 'ALERTS{alertname="DriverDown",alertstate="firing",run="a"}'
    tests = [
        {
            "expr": expression.replace("$run", run),
            "eval_time": "1m",
            "exp_samples": [{"labels": labels, "value": value}],
        }
        for run, labels, value in (("a", firing, 1), ("b", '{alertname="none"}', 0))
    ]
    series = [{"series": firing, "values": "1x5"}]
    content = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}
    result = promtool(tmp_path, "test", "rules", content)
    assert result.returncode == 0, result.stdout + result.stderr
