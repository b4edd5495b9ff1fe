"""The driver is killed outright, as when its node goes down: the run goes on when it is started again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.atomic import write_json
from common.config.recipe import Recipe
from common.paths import CHECKOUT
from deploy.runs.local_run import run_local
from learner.checkpoint import newest_checkpoint
from tests.service.reading import digest, events, learned_tickets, summary

pytestmark = pytest.mark.ray

PATIENCE_SECONDS = 300


class Run:
    """`python -m deploy train` on a file of a recipe, started as often as a test wants."""

    def __init__(self, recipe: Recipe):
        self.folder = Path(recipe.run.dir) / recipe.run.name
        self._file = Path(recipe.run.dir) / "recipe.json"
        write_json(self._file, recipe.model_dump(mode="json"))

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", "train", str(self._file)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill_after(self, seconds: float) -> bool:
        """Start it, kill it `seconds` after it began to train; whether it was killed before its end."""
        with self.start() as process:
            began, deadline = len(events(self.folder, "rank_joined")), time.monotonic() + PATIENCE_SECONDS
            while len(events(self.folder, "rank_joined")) == began and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL

    def finish(self) -> None:
        with self.start() as process:
            output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, output


def require_untouched(run: Run, recipe: Recipe, undisturbed: Recipe) -> None:
    """It ended, with every sample learned from once, and with the weights of an undisturbed run."""
    num_steps = recipe.learner.num_steps
    assert summary(run.folder)["steps"] == num_steps
    assert learned_tickets(run.folder) == list(range(num_steps * recipe.tickets_per_step))
    assert digest(run.folder) == digest(run_local(undisturbed).path)


def test_a_driver_killed_twice_ends_with_the_weights_of_an_undisturbed_run(small_run):
    steps = {"learner.num_steps": 40}
    recipe = small_run("killed", {"checkpoint.every": 3} | steps)
    run = Run(recipe)
    assert run.kill_after(2)
    assert run.kill_after(1)
    run.finish()
    assert len(events(run.folder, "started")) == 3
    require_untouched(run, recipe, small_run("local", steps))


@pytest.mark.chaos
def test_a_driver_killed_twenty_times_at_random_leaves_no_broken_checkpoint(small_run):
    moments = random.Random(0)
    steps = {"learner.num_steps": 600}
    recipe = small_run("killed", {"checkpoint.every": 2} | steps)
    run = Run(recipe)
    for _ in range(20):
        assert run.kill_after(moments.uniform(0, 10)), "the run is too short for twenty kills"
        newest = newest_checkpoint(run.folder / "checkpoints")
        complete = [path for path in (run.folder / "checkpoints").glob("step-*")]
        assert newest is None or newest == max(complete)  # none was passed over for a damaged file
    run.finish()
    started = events(run.folder, "started")
    assert len(started) == 21
    assert len({event["step"] for event in started}) > 3
    require_untouched(run, recipe, small_run("local", steps))
