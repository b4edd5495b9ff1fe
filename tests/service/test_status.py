"""`status` of a running job: from its folder, through RAY_ADDRESS by its name, and watched to its end."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.service.driver import train

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_run_is_looked_at_by_name_through_ray_address_and_watched_to_its_end(small_run):
    recipe = small_run("watched", {"learner.num_steps": 1000, "checkpoint.every": 5})
    folder = Path(recipe.run.dir) / "watched"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    # With RAY_ADDRESS a command leaves this to its environment, and the run's Ray is on loopback alone.
    outside["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "-m", "deploy", *words)
        return subprocess.run(words, capture_output=True, text=True, env=outside | environment, timeout=60)

    said: dict[str, subprocess.CompletedProcess[str]] = {}

    def watch() -> None:
        said["watch"] = command("status", str(folder), "--watch", "0.5")

    def look() -> None:
        while not any((folder / "checkpoints").glob("step-*")):
            time.sleep(0.2)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            known = json.loads((folder / "ray.json").read_text())
            environment = {"RAY_ADDRESS": known["address"], **known["environment"]}
            said["json"] = command("status", "watched", "--json", **environment)
            time.sleep(6)  # the watcher has come in
        finally:
            said["stop"] = command("stop", str(folder))
            watcher.join(timeout=60)

    looker = threading.Thread(target=look)
    looker.start()
    summary = train(recipe).summary
    looker.join(timeout=120)
    assert summary["status"] == "stopped"

    status = json.loads(said["json"].stdout)
    assert status["run"] == "watched"
    assert status["step"] >= 5
    assert status["eta_seconds"] > 0
    assert status["last_checkpoint"]["step"] >= 5
    assert status["buffer_capacity"] == 8
    (actor,) = status["actors"].values()
    assert actor["node"] == "127.0.0.1"
    assert len(actor["code"]) == 12
    assert actor["groups_per_second"] > 0
    assert "actor_joined" in [event["event"] for event in status["recent_events"]]

    assert said["watch"].returncode == 0, said["watch"].stderr
    looks = said["watch"].stdout.count("step        ")
    assert looks >= 3
    assert said["watch"].stdout.endswith(f"{folder} has ended\n")
