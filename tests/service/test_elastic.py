"""Actors come, go and die in mid-run; at staleness 0 the weights stay those of an undisturbed run."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from actors.rollout_actor import RolloutActor
from deploy.runs.local_run import run_local
from deploy.service.control_actor import NAMESPACE, control_name
from learner.learner_actor import LearnerActor
from tests.service.conftest import Acts
from tests.service.reading import digest, events, learned_tickets, lines

pytestmark = pytest.mark.ray

STEPS = {"learner.num_steps": 12}


def folder_of(recipe) -> Path:
    return Path(recipe.run.dir) / recipe.run.name


def kill(recipe, actor: str) -> Callable:
    def act(_fact) -> None:
        (pid,) = (event["pid"] for event in events(folder_of(recipe), "actor_joined") if event["actor"] == actor)
        os.kill(pid, signal.SIGKILL)

    return act


def scale(recipe, count: int) -> Callable:
    """As `python -m deploy scale` asks."""
    return lambda _fact: ray.get_actor(control_name(recipe.run.name), NAMESPACE).ask.remote({"scale": count})


def test_killed_actors_are_replaced_and_leave_the_weights_of_an_undisturbed_run(small_run, serve):
    recipe = small_run("killed", {"actors.count": 2} | STEPS)
    run = serve(recipe, Acts({3: kill(recipe, "actor-0"), 7: kill(recipe, "actor-1")})).folder.path
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)
    assert len(events(run, "actor_lost")) == 2
    assert learned_tickets(run) == list(range(12 * 4))


def test_a_killed_judge_is_replaced_and_leaves_the_weights_of_an_undisturbed_run(small_run, serve):
    steps = {"learner.num_steps": 5, "reward.classifier": 0.5}
    recipe = small_run("judged", steps | {"reward.actors": {"count": 1, "num_cpus": 0.5}})

    def kill_the_judge(_fact) -> None:
        os.kill(events(folder_of(recipe), "judge_joined")[0]["pid"], signal.SIGKILL)

    run = serve(recipe, Acts({2: kill_the_judge})).folder.path
    assert digest(run) == digest(run_local(small_run("local", steps)).path)
    assert [event["actor"] for event in events(run, "judge_lost")] == ["judge-0"]
    assert events(run, "actor_lost") == []
    assert learned_tickets(run) == list(range(5 * 4))
    assert {event["judge"] for event in events(run, "ticket_delivered")} == {"judge-0", "judge-1"}


@pytest.mark.chaos
def test_scaling_leaves_the_weights_of_an_undisturbed_run(small_run, serve):
    steps = {"learner.num_steps": 60}
    recipe = small_run("scaled", {"actors.num_cpus": 0.25} | steps)
    run = serve(recipe, Acts({3: scale(recipe, 3), 30: scale(recipe, 2)})).folder.path
    assert digest(run) == digest(run_local(small_run("local", steps)).path)
    assert [event["after"] for event in events(run, "scaled")] == [3, 2]
    assert learned_tickets(run) == list(range(60 * 4))


@pytest.mark.chaos
def test_a_run_whose_only_rank_dies_goes_on_from_its_newest_checkpoint(small_run, serve):
    recipe = small_run("lost", {"checkpoint.every": 5} | STEPS)

    def kill_the_rank(_fact) -> None:
        os.kill(events(folder_of(recipe), "rank_joined")[-1]["pid"], signal.SIGKILL)

    run = serve(recipe, Acts({7: kill_the_rank})).folder.path
    (lost,) = events(run, "learner_lost")
    assert lost["resumed_from"].endswith("step-000005")
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == list(range(1, 13))
    assert learned_tickets(run) == list(range(12 * 4))


@pytest.mark.chaos
def test_slow_actors_get_another_and_fast_ones_that_fill_the_buffer_lose_it_again(small_run, serve, tmp_path):
    """First the actors are slow; once there is a second, the learner is."""
    actors_are_slow, steps = tmp_path / "actors_are_slow", range(1, 400)
    actors_are_slow.touch()
    changes = {"learner.num_steps": len(steps), "buffer.max_staleness": 1, "actors.autoscale": {"max": 2}}
    recipe = small_run("auto", changes)

    class DelayedActor(RolloutActor):
        def roll_out(self, *arguments):
            time.sleep(0.5 if actors_are_slow.exists() else 0)
            return super().roll_out(*arguments)

    class DelayedLearner(LearnerActor):
        def train(self, *arguments):
            time.sleep(0 if actors_are_slow.exists() else 1.5)
            return super().train(*arguments)

    def see(fact) -> None:
        if fact.num_actors == 2:
            actors_are_slow.unlink(missing_ok=True)
        if len(events(folder_of(recipe), "scaled")) == 2:
            signal.raise_signal(signal.SIGTERM)

    acts = Acts(dict.fromkeys(steps, see))
    run = serve(recipe, acts, rollout_actor=DelayedActor, learner_actor=DelayedLearner).folder.path
    up, down = events(run, "scaled")
    assert (up["before"], up["after"], down["before"], down["after"]) == (1, 2, 2, 1)
    assert re.fullmatch(r"the learner waited \d+% of each of 3 steps", up["reason"])
    assert re.fullmatch(
        r"the learner waited [01]% of each of 3 steps, and the buffer was \d+% full", down["reason"]
    )
