"""A run as its user sees it: the endpoint while it goes, SIGTERM in its middle, and the run going on later."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from common.atomic import write_json
from common.config.recipe import Recipe
from common.metrics.catalogue import CATALOGUE
from common.paths import CHECKOUT
from deploy.runs.local_run import run_local
from deploy.runs.run_folder import RunFolder

pytestmark = pytest.mark.ray

PATIENCE_SECONDS = 120


def start(recipe: Recipe, folder: Path) -> subprocess.Popen:
    """`python -m deploy train` on a file of the recipe."""
    path = folder / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    command = [sys.executable, "-m", "deploy", "train", str(path)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def await_endpoint(run: subprocess.Popen, folder: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and run.poll() is None:
        path = folder / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if lines:
            return lines[-1]["metrics"] if "metrics" in lines[-1] else lines[0]["metrics"]
        time.sleep(0.1)
    pytest.fail(f"no run folder: {run.communicate()[0]}")


def scrape_after_step(run: subprocess.Popen, url: str, step: int) -> str:
    """The metrics once the run has done `step` steps."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and run.poll() is None:
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        if value(text, "vapi_learner_step") >= step:
            return text
        time.sleep(0.1)
    pytest.fail(f"no step {step} in time: {run.communicate()[0]}")


def value(metrics: str, name: str) -> float:
    match = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_a_run_can_be_scraped_stopped_and_gone_on_with(small_run, tmp_path):
    recipe = small_run("run", {"learner.num_steps": 60, "checkpoint.every": 1000})
    folder = tmp_path / "run"
    with start(recipe, tmp_path) as run:
        url = await_endpoint(run, folder)
        text = scrape_after_step(run, url, 2)
        health = json.loads(urllib.request.urlopen(url.replace("/metrics", "/healthz"), timeout=10).read())
        run.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=PATIENCE_SECONDS)
    assert health["healthy"] is True
    assert value(text, "vapi_actors_groups_total") >= 16
    assert value(text, "vapi_actors_ready") == 1
    assert {metric.name for metric in CATALOGUE} <= set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    require_promtool_clean(text)

    assert run.returncode == 128 + signal.SIGTERM, output
    stopped = json.loads((folder / "summary.json").read_text())
    assert stopped["status"] == "stopped"
    assert 2 <= stopped["steps"] < 60
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [f"step-{stopped['steps']:06d}"]

    more = stopped["steps"] + 2
    going_on = small_run("run", {"learner.num_steps": more})
    with start(going_on, tmp_path) as run:
        output, _ = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, output
    finished = json.loads((folder / "summary.json").read_text())
    whole: RunFolder = run_local(small_run("whole", {"learner.num_steps": more}))
    assert finished["weights_sha256"] == json.loads((whole.path / "summary.json").read_text())["weights_sha256"]


def require_promtool_clean(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_interrupted_run_leaves_no_process_behind(small_run, tmp_path):
    recipe = small_run("run", {"learner.num_steps": 1000})
    with start(recipe, tmp_path) as run:
        scrape_after_step(run, await_endpoint(run, tmp_path / "run"), 1)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 128 + signal.SIGINT, output
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    joined = [event for event in events if event["event"] == "actor_joined"]
    assert joined
    for event in joined:
        with pytest.raises(ProcessLookupError):
            os.kill(event["pid"], 0)


def test_with_json_logs_every_line_of_driver_actors_and_ranks_is_an_object(small_run, tmp_path):
    recipe = small_run("run", {"log.format": "json", "actors.count": 2})
    path = tmp_path / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    command = [sys.executable, "-m", "deploy", "train", str(path)]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stderr.splitlines() if "vapi" in line or "INFO" in line]
    assert {line["role"] for line in lines} == {"driver", "actor-0", "actor-1", "rank-0"}
    assert [line["message"] for line in lines if line["role"] == "actor-1"] == ["ready on cpu"]
    assert {line["step"] for line in lines if line["logger"] == "vapi.progress"} >= {5}
    assert all(line["level"] == "INFO" for line in lines)
