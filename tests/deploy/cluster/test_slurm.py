"""The batch file for SLURM; programs that write down what they are asked stand in for SLURM, Ray and driver."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from common.paths import CHECKOUT

BATCH = CHECKOUT / "deploy" / "slurm" / "train.sbatch"
PATIENCE_SECONDS = 30
STANDS_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "$ASKED"
case "$(basename "$0") $*" in
  *--block*) exec sleep 600;;
  "python -m deploy train"*) trap 'echo "driver stopped" >> "$ASKED"; exit 143' TERM; echo up >> "$ASKED"
    for _ in {1..600}; do sleep 0.05; done;;
esac
"""


class Job:
    def __init__(self, folder: Path, num_nodes: int):
        self._asked = folder / "asked.txt"
        for name in ("ray", "python", "srun", "scontrol"):
            path = folder / name
            path.write_text(STANDS_IN)
            path.chmod(0o755)
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHON": str(folder / "python"),
            "ASKED": str(self._asked),
            "SLURM_SUBMIT_DIR": str(CHECKOUT),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": str(num_nodes),
            "SLURM_GPUS_ON_NODE": "8",
            "SLURMD_NODENAME": "n1",
        }
        words = ["bash", str(BATCH), "RECIPE", "run.name=mine"]
        self.batch = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []

    def await_asked(self, start: str) -> str:
        """The first line with this start: what runs in the background may come after the driver is up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (lines := [line for line in self.asked() if line.startswith(start)]):
            assert time.monotonic() < deadline, self.asked()
            time.sleep(0.05)
        return lines[0]

    def told(self, number: signal.Signals) -> int:
        """Its exit code after a signal, which SLURM gives to the batch file alone."""
        self.batch.send_signal(number)
        self.batch.communicate(timeout=PATIENCE_SECONDS)
        return self.batch.returncode


@pytest.fixture
def start_job(tmp_path: Path):
    jobs = []

    def start(num_nodes: int) -> Job:
        jobs.append(Job(tmp_path, num_nodes))
        jobs[-1].await_asked("up")
        return jobs[-1]

    yield start
    for job in jobs:
        if job.batch.poll() is None:
            os.killpg(job.batch.pid, signal.SIGKILL)


def test_a_head_here_a_node_of_ray_on_each_other_and_the_driver_with_all_that_was_said(start_job) -> None:
    job = start_job(num_nodes=3)
    head = job.await_asked("ray start --head")
    address = next(word.partition("=")[2] for word in head.split() if word.startswith("--node-ip-address="))
    assert {"--block", "--num-gpus=8", "--port=6379", "--dashboard-host=127.0.0.1"} <= set(head.split())
    others = job.await_asked("srun")
    assert others.split()[:5] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--exclude=n1"]
    assert others.endswith(f"ray start --block --num-gpus=8 --address={address}:6379")
    assert "python -m deploy train RECIPE run.name=mine" in job.asked()
    assert job.told(signal.SIGTERM) == 143


def test_a_job_that_is_told_to_end_stops_the_run_and_is_not_queued_again(start_job) -> None:
    job = start_job(num_nodes=1)
    assert job.told(signal.SIGTERM) == 143
    assert job.asked()[-1] == "driver stopped"
    assert not [line for line in job.asked() if line.startswith("srun")]


def test_a_job_whose_time_is_over_stops_the_run_and_is_queued_again(start_job) -> None:
    job = start_job(num_nodes=1)
    assert job.told(signal.SIGUSR1) == 143
    assert job.asked()[-2:] == ["driver stopped", "scontrol requeue 7"]


def test_the_time_for_a_checkpoint_is_that_of_a_job_on_ray() -> None:
    assert "#SBATCH --signal=B:USR1@600" in BATCH.read_text().splitlines()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    result = subprocess.run(["shellcheck", str(BATCH)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")
