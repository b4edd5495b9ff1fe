"""A run as its user sees it: its endpoint and its status while it goes, a signal in its middle, JSON log lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from common.atomic import write_json
from common.config.recipe import Recipe
from common.metrics.catalogue import CATALOGUE
from common.paths import CHECKOUT
from tests.service.reading import events, summary

pytestmark = pytest.mark.ray

PATIENCE_SECONDS = 120


def start(recipe: Recipe, folder: Path) -> subprocess.Popen:
    """`python -m deploy train` on a file of the recipe."""
    path = folder / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    command = [sys.executable, "-m", "deploy", "train", str(path)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_endpoint(run: subprocess.Popen, folder: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and run.poll() is None:
        started = events(folder, "started")
        if started:
            return started[-1]["metrics"]
        time.sleep(0.1)
    pytest.fail(f"no run folder: {run.communicate()}")


def scrape_after_step(run: subprocess.Popen, url: str, step: int) -> str:
    """The metrics once the run has done `step` steps."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and run.poll() is None:
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        if value(text, "vapi_learner_step") >= step:
            return text
        time.sleep(0.1)
    pytest.fail(f"no step {step} in time: {run.communicate()}")


def value(metrics: str, name: str) -> float:
    match = re.search(rf'^{name}{{run="run"}} (\S+)$', metrics, re.MULTILINE)
    return float(match[1]) if match else 0.0


def deploy(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command from outside, which knows no token and listens on loopback."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    outside |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} | environment
    command = (sys.executable, "-m", "deploy", *words)
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=outside, timeout=60)


def require_promtool_clean(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def require_gone(folder: Path) -> None:
    pids = [event["pid"] for kind in ("actor_joined", "rank_joined") for event in events(folder, kind)]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def require_json_lines(errors: str) -> None:
    """Of driver, actor and rank, each an object, with the step that it was at."""
    lines = [json.loads(line) for line in errors.splitlines() if "vapi" in line or "INFO" in line]
    assert {line["role"] for line in lines} == {"driver", "actor-0", "rank-0"}
    assert [line["message"] for line in lines if line["role"] == "actor-0"] == ["ready on cpu"]
    assert max(line["step"] for line in lines if line["logger"] == "vapi.progress") >= 5


def test_a_run_is_scraped_and_asked_and_ends_at_a_signal_with_a_checkpoint_and_no_process_left(
    small_run, tmp_path
) -> None:
    recipe = small_run("run", {"learner.num_steps": 4000, "checkpoint.every": 5, "log.format": "json"})
    folder = tmp_path / "run"
    with start(recipe, tmp_path) as run:
        url = await_endpoint(run, folder)
        text = scrape_after_step(run, url, 6)
        page = urllib.request.urlopen(url.replace("/metrics", "/"), timeout=30).read().decode()
        health = json.loads(urllib.request.urlopen(url.replace("/metrics", "/healthz"), timeout=10).read())
        known = json.loads((folder / "ray.json").read_text())
        by_name = deploy("status", "run", "--json", RAY_ADDRESS=known["address"], **known["environment"])
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 128 + signal.SIGTERM, errors
    require_json_lines(errors)
    require_gone(folder)

    assert health["healthy"] is True
    assert "<title>run · at work · VA-π run</title>" in page
    assert value(text, "vapi_actors_groups_total") >= 16
    assert value(text, "vapi_actors_ready") == 1
    assert {metric.name for metric in CATALOGUE} <= set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    require_promtool_clean(text)

    status = json.loads(by_name.stdout)
    assert (status["run"], status["buffer_capacity"]) == ("run", 8)
    assert status["step"] >= 6
    assert status["eta_seconds"] > 0
    assert status["last_checkpoint"]["step"] >= 5
    (actor,) = status["actors"].values()
    assert (actor["node"], len(actor["code"])) == ("127.0.0.1", 12)
    assert actor["groups_per_second"] > 0
    assert "actor_joined" in [event["event"] for event in status["recent_events"]]

    assert summary(folder)["status"] == "stopped"
    newest = max(path.name for path in (folder / "checkpoints").iterdir())
    assert newest == f"step-{summary(folder)['steps']:06d}"


@pytest.mark.chaos
def test_an_interrupted_run_leaves_no_process_behind(small_run, tmp_path):
    recipe = small_run("run", {"learner.num_steps": 1000})
    with start(recipe, tmp_path) as run:
        scrape_after_step(run, await_endpoint(run, tmp_path / "run"), 1)
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 128 + signal.SIGINT, output
    require_gone(tmp_path / "run")


@pytest.mark.chaos
def test_a_run_is_watched_scaled_and_stopped_from_another_process(small_run, tmp_path):
    folder = tmp_path / "run"
    said: dict[str, subprocess.CompletedProcess[str]] = {}

    def watch() -> None:
        said["watch"] = deploy("status", str(folder), "--watch", "0.5")

    with start(small_run("run", {"learner.num_steps": 4000}), tmp_path) as run:
        scrape_after_step(run, await_endpoint(run, folder), 1)
        watcher = threading.Thread(target=watch)
        watcher.start()
        assert deploy("scale", str(folder), "actors=2").stdout == "asked for 2 reward actors\n"
        while len(events(folder, "actor_joined")) < 2:
            time.sleep(0.2)
        deploy("scale", str(folder), "actors=1")
        while not events(folder, "actor_left"):
            time.sleep(0.2)
        said["status"] = deploy("status", str(folder))
        deploy("stop", str(folder))
        run.communicate(timeout=PATIENCE_SECONDS)
        watcher.join(timeout=60)
    assert [(event["before"], event["after"]) for event in events(folder, "scaled")] == [(1, 2), (2, 1)]
    assert "1 ready, 1 wanted, 0 restarts" in said["status"].stdout
    assert summary(folder)["status"] == "stopped"
    assert said["watch"].stdout.count("step        ") >= 3
    assert said["watch"].stdout.endswith(f"{folder} has ended\n")
