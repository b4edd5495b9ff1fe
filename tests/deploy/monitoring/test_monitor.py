"""`monitor`: which run it watches, what it starts, and that a Prometheus it starts scrapes the run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from common.config.service import MetricsSection
from common.errors import ClusterError
from common.metrics.exporter import Exporter, Metrics
from common.paths import CHECKOUT
from deploy.__main__ import main
from deploy.monitoring import monitor as module
from deploy.monitoring.monitor import prometheus_command, targets, write_files

PATIENCE_SECONDS = 60


def write_events(folder: Path, *events: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def started(port: int) -> dict[str, str]:
    return {"event": "started", "metrics": f"http://127.0.0.1:{port}/metrics"}


def program(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    path.chmod(0o755)
    return path


def test_a_run_is_watched_from_its_newest_start_until_it_ends(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    write_events(run, started(1000), {"event": "stopped"}, started(2000), {"event": "step_learned"})
    assert targets(str(run)) == [{"targets": ["127.0.0.1:2000"], "labels": {"run": "demo"}}]
    for end in ("succeeded", "stopped", "failed"):
        write_events(run, started(1000), {"event": end})
        assert targets(str(run)) == []


def test_a_line_that_a_killed_run_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    write_events(tmp_path, started(1000))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "step_lea')
    assert targets(str(tmp_path))[0]["targets"] == ["127.0.0.1:1000"]


def test_without_a_name_the_run_where_something_happened_last_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resolve", lambda path: tmp_path / path)
    assert targets(None) == []
    for age, name in enumerate(("new", "old")):
        write_events(tmp_path / "runs" / name, started(1000 + age))
        os.utime(tmp_path / "runs" / name / "events.jsonl", (1e9 - age, 1e9 - age))
    assert targets(None) == [{"targets": ["127.0.0.1:1000"], "labels": {"run": "new"}}]


def test_prometheus_is_taken_where_it_is_installed_else_a_container_else_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(tmp_path / "own", "prometheus")
    docker = program(tmp_path / "docker", "docker")
    monkeypatch.setenv("PATH", f"{own.parent}:{docker.parent}")
    options = [
        "--config.file=/data/prometheus.yml",
        "--storage.tsdb.path=/data/tsdb",
        "--web.listen-address=127.0.0.1:9090",
        "--log.level=warn",
    ]
    assert prometheus_command(Path("/data"), 9090) == [str(own), *options]
    monkeypatch.setenv("PATH", str(docker.parent))
    command = prometheus_command(Path("/data"), 9090)
    assert command[:4] == [str(docker), "run", "--rm", "--network=host"]
    assert command[5:] == ["--volume=/data:/data", module.IMAGE, *options]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="neither prometheus nor docker is on the PATH: install one"):
        prometheus_command(Path("/data"), 9090)


def test_a_name_of_no_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "runs/none-of-this-name"]) == 2
    line = "error: runs/none-of-this-name is no run folder: name the folder of a run, such as runs/emoji\n"
    assert capsys.readouterr().err == line


def test_promtool_accepts_the_configuration_and_the_rules_pass_their_tests(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    write_files(tmp_path)
    (tmp_path / "targets.json").write_text("[]")
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        result = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_unit_test_and_a_paragraph() -> None:
    alerts = {word.split()[-1] for word in _lines("deploy/prometheus/alert_rules.yml") if "- alert:" in word}
    tested = "\n".join(_lines("deploy/prometheus/rules_test.yml"))
    page = "\n".join(_lines("docs/monitoring.md"))
    assert len(alerts) == 9
    assert {alert for alert in alerts if f"alertname: {alert}" not in tested} == set()
    assert {alert for alert in alerts if f"| `{alert}` |" not in page} == set()


def _lines(path: str) -> list[str]:
    return (CHECKOUT / path).read_text().splitlines()


def test_a_started_prometheus_scrapes_the_run_and_ends_with_the_command(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    exporter = Exporter(Metrics(), MetricsSection(port=0))
    exporter.show("demo")
    write_events(tmp_path / "demo", {"event": "started", "metrics": f"{exporter.url}/metrics"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["monitor", str(tmp_path / "demo"), "--port", str(port), "--data", str(tmp_path / "data")]
    command = subprocess.Popen(
        [sys.executable, "-m", "deploy", *words], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    try:
        labels = {"run": "demo", "job": "vapi", "instance": exporter.url.split("/")[-1]}
        assert await_target(port) == labels
        for name in ("up", "vapi_learner_step"):  # the run is named once, by the target and by the driver
            (series,) = ask(port, f"query?query={name}")["result"]
            assert series["metric"] == labels | {"__name__": name}
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=PATIENCE_SECONDS)
    finally:
        command.kill()
        exporter.close()
    assert command.returncode == 128 + signal.SIGTERM
    assert f"watching demo at {exporter.url.removeprefix('http://')}" in said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def ask(port: int, what: str) -> Any:
    """Prometheus's answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=10) as response:
        return json.load(response)["data"]


def await_target(port: int) -> dict[str, str] | None:
    """The labels of the one target, once it was scraped."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            active = ask(port, "targets")["activeTargets"]
        except OSError:
            continue
        if [target["health"] for target in active] == ["up"]:
            return active[0]["labels"]
    return None
