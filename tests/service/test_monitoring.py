"""The files of deploy/prometheus and deploy/grafana against a live run and a real Prometheus, at a faster pace."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.atomic import write_json
from common.config.recipe import Recipe
from common.paths import CHECKOUT
from deploy.monitoring.monitor import prometheus_command, targets, write_files

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed (Debian: apt-get install prometheus)",
    ),
]

PATIENCE_SECONDS = 120
PACE = [  # of a copy of the files: the same rules, on seconds instead of minutes
    (r"(scrape|evaluation)_interval: 5s", r"\1_interval: 1s"),
    (r"\[(1m|5m|30m)\]", "[10s]"),
    (r"\[15m\]", "[30s]"),
    (r"offset 15m", "offset 10s"),
    (r"for: \d+m", "for: 3s"),
]


@contextmanager
def running(command: list[str], output: Path) -> Iterator[subprocess.Popen]:
    """A process of the test's own, ended with the block."""
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def await_true(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as that is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OSError:  # it does not listen yet
            pass
        time.sleep(0.3)
    pytest.fail(f"not in {PATIENCE_SECONDS} s: {what}")


def start_run(recipe: Recipe, folder: Path) -> list[str]:
    path = folder / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    return [sys.executable, "-m", "deploy", "train", str(path)]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] == kind]


class Prometheus:
    """Its HTTP interface."""

    def __init__(self, port: int):
        self._api = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **words: str) -> Any:
        url = f"{self._api}{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def values(self, expression: str) -> list[float]:
        """Those of the series that the expression gives; urllib raises where Prometheus refuses it."""
        return [float(sample["value"][1]) for sample in self.get("query", query=expression)["result"]]

    def firing(self) -> set[str]:
        alerts = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture
def fast_files(tmp_path: Path) -> Path:
    folder = tmp_path / "prometheus"
    write_files(folder)
    for path in folder.glob("*.yml"):
        text = path.read_text()
        for pattern, pace in PACE:
            text = re.sub(pattern, pace, text)
        path.write_text(text)
    return folder


def rules(file: str, kind: str) -> dict[str, str]:
    """Expression by the name of each rule of a kind, `record` or `alert`."""
    groups = yaml.safe_load((CHECKOUT / "deploy" / "prometheus" / file).read_text())["groups"]
    return {rule[kind]: rule["expr"] for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, str]:
    """Every expression of the dashboard, for all runs, by its panel's title and a letter; no lone alerts."""
    panels = json.loads((CHECKOUT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$run", ".*")
        for row in panels
        for panel in (row, *row.get("panels", []))
        for target in panel.get("targets", [])
        if not re.fullmatch(r"ALERTS{[^}]*}", target["expr"])
    }


def annotations() -> list[str]:
    tree = json.loads((CHECKOUT / "deploy" / "grafana" / "dashboard.json").read_text())
    return [each["expr"].replace("$run", ".*") for each in tree["annotations"]["list"]]


def at_pace(expression: str) -> str:
    return re.sub(r"\[(1m|5m|30m)\]", "[10s]", expression)


EVALUATION = {
    "enabled": True,
    "num_samples": 20,
    "num_held_out": 8,
    "num_reference": 20,
    "classifier": str(CHECKOUT / "deploy/recipes/mnist/classifier.safetensors"),
}


def test_a_live_run_answers_every_rule_and_panel_a_paused_actor_raises_the_alert_and_the_end_is_seen(
    small_run, fast_files: Path, tmp_path: Path
) -> None:
    recipe = small_run("watched", {"learner.num_steps": 100_000, "checkpoint.every": 5, "evaluation": EVALUATION})
    folder = tmp_path / "watched"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prometheus = Prometheus(port)
    with running(start_run(recipe, tmp_path), tmp_path / "run.txt") as run:
        await_true(lambda: events(folder, "checkpoint"), (tmp_path / "run.txt").read_text())
        write_json(fast_files / "targets.json", targets(str(folder)))
        with running(prometheus_command(fast_files, port), tmp_path / "prometheus.txt"):
            await_true(lambda: prometheus.values('up{run="watched"} == 1'), "the run is scraped")
            await_true(lambda: prometheus.values("vapi:learner_wait:ratio5m >= 0"), "rates of the run")
            require_data(prometheus)
            assert "LearnerStalled" not in prometheus.firing()
            require_alert_when_paused(prometheus, [event["pid"] for event in events(folder, "actor_joined")])
            run.terminate()
            stopped = 'last_over_time(vapi_driver_state{run="watched", state="stopped"}[10m]) == 1'
            await_true(lambda: prometheus.values(stopped), "how the run ended")


def require_data(prometheus: Prometheus) -> None:
    expressions = dashboard()
    assert len(expressions) > 40
    recorded = {name: name for name in rules("recording_rules.yml", "record")}
    assert len(recorded) == 16

    def without_data() -> set[str]:
        answers = {
            name: prometheus.values(at_pace(expression)) for name, expression in (expressions | recorded).items()
        }
        return {name for name, values in answers.items() if not values or any(map(math.isnan, values))}

    await_true(lambda: not without_data(), "data for every panel and recorded name")
    for expression in (*rules("alert_rules.yml", "alert").values(), *annotations()):
        prometheus.values(expression)
    states = [rule["health"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert states == ["ok"] * 25


def require_alert_when_paused(prometheus: Prometheus, actors: list[int]) -> None:
    try:
        for pid in actors:
            os.kill(pid, signal.SIGSTOP)
        await_true(lambda: "LearnerStalled" in prometheus.firing(), "the alert of a stalled learner")
    finally:
        for pid in actors:
            os.kill(pid, signal.SIGCONT)
    await_true(lambda: "LearnerStalled" not in prometheus.firing(), "the alert is over")
