"""A job on a cluster that `ray start` made: submitted, scaled from another process, stopped, submitted again."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from common.atomic import write_json
from common.paths import CHECKOUT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PATIENCE_SECONDS = 120
RAY = str(Path(sys.executable).with_name("ray"))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, none of them among those of Ray's workers (10002 to 19999)."""
    with ExitStack() as stack:
        ports = []
        while len(ports) < count:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            if not 10002 <= port <= 19999:
                ports.append(port)
    return ports


class Cluster:
    """A head of its own on loopback, which asks for a token."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        gcs, dashboard, agent, client = free_ports(4)
        self.gcs, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        foreign = ("RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
        self.environment = {name: value for name, value in os.environ.items() if name not in foreign} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # of the job: `python` is this one
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        options = {
            "num-cpus": 4,
            "temp-dir": folder,
            "node-ip-address": "127.0.0.1",
            "port": gcs,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "object-store-memory": 200 << 20,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        with (folder / "head.log").open("w") as log:
            self._head = subprocess.Popen(
                [RAY, "start", "--head", "--block", *words],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *words: str, address: str, check: bool = True) -> str:
        """What a command prints, run in the checkout with RAY_ADDRESS set."""
        result = subprocess.run(
            words,
            cwd=CHECKOUT,
            env=self.environment | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert result.returncode == 0 or not check, result.stdout + result.stderr
        return result.stdout

    def job(self, *words: str, check: bool = True) -> str:
        return self.run(RAY, "job", *words, address=self.dashboard, check=check)

    def submit(self, recipe: Path, job: str, *overrides: str) -> None:
        """As docs/operations.md says."""
        environment = ("--working-dir", ".", "--runtime-env", "deploy/ray/runtime_env.yaml")
        entrypoint = ("python", "-m", "deploy", "train", str(recipe), *overrides)
        self.job("submit", *environment, "--submission-id", job, "--no-wait", "--", *entrypoint)

    def control(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "deploy", *words, address=self.gcs)

    def await_dashboard(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._head.poll() is None:
            if "[]" in self.job("list", check=False):  # of jobs; nothing where the dashboard does not answer
                return
            time.sleep(0.5)
        pytest.fail((self._folder / "head.log").read_text())

    def stop(self) -> None:
        """End the head, and what it has started: whatever names this cluster's folder on its command line."""
        with suppress(ProcessLookupError):
            os.killpg(self._head.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._head.wait(timeout=5)  # it may outlive its processes
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self._folder).encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        self._head.wait()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="vapi"))  # short: the paths of Ray's sockets have 107 bytes
    started = Cluster(folder)
    try:
        started.await_dashboard()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] == kind]


def await_event(cluster: Cluster, job: str, folder: Path, kind: str, count: int = 1) -> dict[str, Any]:
    """The last of `count` such events."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = events(folder, kind)
        if len(found) >= count:
            return found[count - 1]
        time.sleep(0.2)
    pytest.fail(f"no {kind} in time: {cluster.job('logs', job, check=False)}")


def test_a_submitted_run_is_scaled_stopped_with_a_checkpoint_and_gone_on_with(
    cluster: Cluster, small_run, tmp_path: Path
) -> None:
    folder, recipe = tmp_path / "submitted", tmp_path / "recipe.json"
    changes = {"learner.num_steps": 4000, "checkpoint.every": 10000}
    write_json(recipe, small_run("submitted", changes).model_dump(mode="json"))

    cluster.submit(recipe, "first")
    await_event(cluster, "first", folder, "step_learned")
    assert cluster.control("scale", "submitted", "actors=2") == "asked for 2 reward actors\n"
    await_event(cluster, "first", folder, "actor_joined", count=2)
    status = json.loads(cluster.control("status", "submitted", "--json"))
    assert (status["run"], status["num_steps"], status["actors_wanted"]) == ("submitted", 4000, 2)
    assert status["step"] >= 1
    assert {name: bool(node) for name, node in status["actors"].items()} == {"actor-0": True, "actor-1": True}

    cluster.job("stop", "first")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert 1 <= summary["steps"] < 4000
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{summary['steps']:06d}"
    assert events(folder, "failed") == []

    more = summary["steps"] + 2
    cluster.submit(recipe, "second", f"learner.num_steps={more}")
    await_event(cluster, "second", folder, "succeeded")
    assert [event["resumed_from"] for event in events(folder, "started")] == ["", str(checkpoint)]
    finished = json.loads((folder / "summary.json").read_text())
    assert (finished["status"], finished["steps"]) == ("succeeded", more)
    learned = [ticket for event in events(folder, "step_learned") for ticket in event["tickets"]]
    assert sorted(learned) == list(range(more * 4))


@pytest.mark.chaos
def test_the_twins_of_the_paper_s_recipes_run_as_jobs_on_what_the_package_holds(
    cluster: Cluster, tmp_path: Path
) -> None:
    for name, num_groups in (
        ("llamagen-xl-c2i", 24),
        ("llamagen-xxl-c2i", 24),
        ("llamagen-xl-t2i", 24),
        ("ar-grpo-xl-c2i", 12),
        ("ar-grpo-xl-t2i", 12),
    ):
        recipe, folder = Path(f"deploy/recipes/{name.replace('-', '_')}_tiny.yaml"), tmp_path / f"{name}-tiny"
        cluster.submit(recipe, name, f"run.dir={tmp_path}")
        await_event(cluster, name, folder, "succeeded")
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["status"], summary["groups_learned"]) == ("succeeded", num_groups)
        assert summary["images_skipped"] == 0
        cluster.job("stop", name, check=False)  # its processes leave before the next one's come
