"""`monitor`: Prometheus on loopback with the files of deploy/prometheus, watching a run of this machine.

A run's endpoint may be on any free port, so Prometheus is told of it by a file that is written anew whenever a
run starts or ends. A run that was killed stays a target: that it does not answer is what the alert is for.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from common.atomic import write_json
from common.errors import ClusterError, RecipeError
from common.paths import CHECKOUT, resolve

log = logging.getLogger("vapi.monitor")

FILES = CHECKOUT / "deploy" / "prometheus"
IMAGE = "prom/prometheus:v2.53.4"
LOOK_SECONDS = 5.0
_ENDS = {"succeeded", "stopped", "failed"}


def monitor(run: str | None, port: int, data: str) -> int:
    """Run Prometheus until it ends or is interrupted; its exit code.

    `run` is a run folder; None takes the one in `runs/` where something happened last, and follows the next.
    """
    if run is not None and not (resolve(run) / "events.jsonl").is_file():
        raise RecipeError(f"{run} is no run folder: name the folder of a run, such as runs/emoji")
    folder = resolve(data)
    write_files(folder)
    command = prometheus_command(folder, port)
    log.info("Prometheus at http://127.0.0.1:%d, its data in %s", port, folder)
    watched: list[dict[str, Any]] | None = None
    with _running(command) as prometheus:
        while prometheus.poll() is None:
            found = targets(run)
            if found != watched:
                watched = found
                write_json(folder / "targets.json", found)
                log.info("watching %s", _names(found) or "for a run to start")
            try:
                prometheus.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    return prometheus.returncode


def write_files(folder: Path) -> None:
    """Copy the configuration and the rules to `folder`, where targets.json is expected beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in FILES.glob("*.yml"):
        shutil.copy(path, folder)


def targets(run: str | None) -> list[dict[str, Any]]:
    """What Prometheus is to scrape, in its file format; empty where the run has ended, or there is none."""
    folder = resolve(run) if run is not None else _newest(resolve("runs"))
    url = _endpoint(folder / "events.jsonl") if folder else None
    if folder is None or url is None:
        return []
    return [{"targets": [urlparse(url).netloc], "labels": {"run": folder.name}}]


def prometheus_command(folder: Path, port: int) -> list[str]:
    """Prometheus on `folder`'s files: the program where it is installed, else in a container.

    Raises ClusterError where there is neither.
    """
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    if program := shutil.which("prometheus"):
        return [program, *options]
    if docker := shutil.which("docker"):
        owner, volume = f"{os.getuid()}:{os.getgid()}", f"{folder}:{folder}"
        return [docker, "run", "--rm", "--network=host", f"--user={owner}", f"--volume={volume}", IMAGE, *options]
    raise ClusterError(
        "neither prometheus nor docker is on the PATH: install one (Debian, Ubuntu: apt-get install prometheus; "
        "macOS: brew install prometheus)"
    )


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen]:
    """The program, ended with the block, also where this process is asked to end."""
    former = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, former)
        process.terminate()
        process.wait()


def _newest(runs: Path) -> Path | None:
    events = max(runs.glob("*/events.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
    return events.parent if events else None


def _endpoint(events: Path) -> str | None:
    """The address that the newest start of a run wrote, unless the run has ended since."""
    for line in reversed(events.read_text().splitlines()):
        try:
            event = json.loads(line)
        except ValueError:  # not written to its end
            continue
        if event["event"] in _ENDS:
            return None
        if event["event"] == "started":
            return event["metrics"]
    return None


def _names(found: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['labels']['run']} at {each['targets'][0]}" for each in found)
