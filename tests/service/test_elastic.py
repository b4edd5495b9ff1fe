"""Actors come, go and die in mid-run; at staleness 0 the weights stay those of an undisturbed run."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from actors import rollout_pool
from actors.rollout_actor import READING, RolloutActor
from deploy.runs.local_run import run_local
from deploy.service.driver import train
from learner import rank_group
from learner.learner_actor import LearnerActor
from tests.service.reading import digest, events, learned_tickets, lines

pytestmark = pytest.mark.ray

STEPS = {"learner.num_steps": 12}


def kill(actor: str) -> Callable:
    def act(loop) -> None:
        (pid,) = (event["pid"] for event in events(loop.folder.path, "actor_joined") if event["actor"] == actor)
        os.kill(pid, signal.SIGKILL)

    return act


def scale(count: int) -> Callable:
    return lambda loop: loop._scale(count, "the test wants it")


def test_kills_and_scaling_leave_the_weights_of_an_undisturbed_run(small_run, at_steps):
    expected = digest(run_local(small_run("local", STEPS)).path)

    at_steps({3: kill("actor-0"), 7: kill("actor-1")})
    killed = train(small_run("killed", {"actors.count": 2} | STEPS)).folder.path
    assert digest(killed) == expected
    assert len(events(killed, "actor_lost")) == 2
    assert learned_tickets(killed) == list(range(12 * 4))

    at_steps({3: scale(3), 7: scale(2)})
    scaled = train(small_run("scaled", {"actors.num_cpus": 0.25} | STEPS)).folder.path
    assert digest(scaled) == expected
    assert [event["after"] for event in events(scaled, "scaled")] == [3, 2]
    assert learned_tickets(scaled) == list(range(12 * 4))


def test_a_run_whose_only_rank_dies_goes_on_from_its_newest_checkpoint(small_run, at_steps):
    expected = digest(run_local(small_run("local", STEPS)).path)
    killed = []

    def kill_the_rank(loop) -> None:
        if not killed:
            killed.append(events(loop.folder.path, "rank_joined")[-1]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    at_steps({7: kill_the_rank})
    run = train(small_run("lost", {"checkpoint.every": 5} | STEPS)).folder.path
    (lost,) = events(run, "learner_lost")
    assert lost["resumed_from"].endswith("step-000005")
    assert digest(run) == expected
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == list(range(1, 13))
    assert learned_tickets(run) == list(range(12 * 4))


def test_slow_actors_get_another_and_fast_ones_that_fill_the_buffer_lose_it_again(
    small_run, at_steps, monkeypatch, tmp_path
):
    """First the actors are slow; once there is a second, the learner is."""
    actors_are_slow, steps = tmp_path / "actors_are_slow", range(1, 400)
    actors_are_slow.touch()

    class DelayedActor(RolloutActor):
        def roll_out(self, *arguments):
            time.sleep(0.5 if actors_are_slow.exists() else 0)
            return super().roll_out(*arguments)

    class DelayedLearner(LearnerActor):
        def train(self, *arguments):
            time.sleep(0 if actors_are_slow.exists() else 1.5)
            return super().train(*arguments)

    remote_actor = ray.remote(concurrency_groups={READING: 1})(DelayedActor)
    monkeypatch.setattr(rollout_pool, "_RemoteActor", remote_actor)
    monkeypatch.setattr(rank_group, "_RemoteLearner", ray.remote(DelayedLearner))

    def see(loop) -> None:
        scaled = events(loop.folder.path, "scaled")
        if len(loop.pool) == 2:
            actors_are_slow.unlink(missing_ok=True)
        if len(scaled) == 2:
            loop.stop_signal = signal.SIGTERM

    at_steps(dict.fromkeys(steps, see))
    changes = {"learner.num_steps": len(steps), "buffer.max_staleness": 1, "actors.autoscale": {"max": 2}}
    run = train(small_run("auto", changes)).folder.path
    up, down = events(run, "scaled")
    assert (up["before"], up["after"], down["before"], down["after"]) == (1, 2, 2, 1)
    assert re.fullmatch(r"the learner waited \d+% of each of 3 steps", up["reason"])
    assert re.fullmatch(
        r"the learner waited [01]% of each of 3 steps, and the buffer was \d+% full", down["reason"]
    )


def test_a_run_is_scaled_from_another_process(small_run, tmp_path):
    """Up, then down to one, through the command line."""
    import subprocess
    import sys

    def command(*words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        words = (sys.executable, "-m", "deploy", *words)
        return subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout

    said: list[str] = []
    recipe = small_run("scaled", {"learner.num_steps": 400})
    folder = Path(recipe.run.dir) / "scaled"

    def scale() -> None:
        while not (folder / "metrics.jsonl").exists():
            time.sleep(0.2)
        said.append(command("scale", str(folder), "actors=2"))
        while not any(line["actor"] == "actor-1" for line in events(folder, "actor_joined")):
            time.sleep(0.2)
        said.append(command("scale", str(folder), "actors=1"))
        while not events(folder, "actor_left"):
            time.sleep(0.2)
        said.append(command("status", str(folder)))
        said.append(command("stop", str(folder)))

    thread = threading.Thread(target=scale)
    thread.start()
    outcome = train(recipe)
    thread.join(timeout=60)
    assert [(event["before"], event["after"]) for event in events(folder, "scaled")] == [(1, 2), (2, 1)]
    assert "1 ready, 1 wanted, 0 restarts" in said[2]
    assert outcome.summary["status"] == "stopped"
    steps = outcome.summary["steps"]
    assert digest(folder) == digest(run_local(small_run("local", {"learner.num_steps": steps})).path)
    assert learned_tickets(folder) == list(range(steps * 4))
