"""What `status` is told: the state of the moment, rates, the time to the end, newest events, newest checkpoint."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import ActorLeft, CheckpointWritten, TicketDelivered
from common.types import GroupReceipt
from deploy.runs.status import LoopState, Status, last_checkpoint
from deploy.runs.status_text import status_text
from tests.example_facts import EXAMPLES, learned


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def status(tiny_recipe: Recipe, tmp_path: Path, clock: Clock) -> Status:
    """Of a run of ten steps."""
    return Status(with_changes(tiny_recipe, {"learner.num_steps": 10}), tmp_path, clock)


def state(step: int = 0, actors: dict[str, dict[str, Any]] | None = None) -> LoopState:
    return LoopState(
        step=step,
        policy_version=step,
        tickets_learned=2 * step,
        num_tickets=20,
        groups_learned=4 * step,
        images_skipped=3,
        groups_buffered=2,
        bytes_buffered=100,
        actors=actors or {},
        actors_wanted=2,
        actor_restarts=1,
        actors_most=16,
    )


def delivered(version: int, num_groups: int) -> TicketDelivered:
    return TicketDelivered("actor-0", GroupReceipt(0, version, num_groups, 0, skipped=(), stage_seconds={}))


def test_the_state_of_the_moment_beside_the_last_step(status: Status) -> None:
    assert status.of(state())["last_step"] == {}
    status.record(learned(5))
    told = status.of(state(step=5))
    assert told == {
        "judges": None,
        "run": "run",
        "step": 5,
        "num_steps": 10,
        "policy_version": 5,
        "eta_seconds": 15.0,
        "actors": {},
        "actors_wanted": 2,
        "groups_buffered": 2,
        "buffer_capacity": 4,
        "last_checkpoint": None,
        "recent_events": [],
        "groups_learned": 20,
        "images_skipped": 3,
        "actor_restarts": 1,
        "actors_most": 16,
        "last_step": learned(5).metrics(),
    }


def test_the_time_left_is_that_of_the_last_ten_steps(status: Status) -> None:
    assert status.of(state(step=5))["eta_seconds"] is None
    for seconds in (1000.0, *[2.0] * 5, *[4.0] * 5):
        status.record(learned(1, step_seconds=seconds))
    assert status.of(state(step=5))["eta_seconds"] == 15.0


def test_an_actors_rate_counts_from_its_oldest_recent_delivery_to_now(status: Status, clock: Clock) -> None:
    actors = {"actor-0": {"node": "n"}, "actor-1": {"node": ""}}

    def told() -> dict[str, Any]:
        return status.of(state(actors=actors))["actors"]

    status.record(delivered(3, 8))
    assert told()["actor-0"] == {"node": "n", "policy_version": 3, "groups_per_second": None}
    clock.now = 102.0
    status.record(delivered(4, 6))
    assert told()["actor-0"]["groups_per_second"] == 3.0
    clock.now = 106.0  # nothing more has come: it slows down
    assert told() == {
        "actor-0": {"node": "n", "policy_version": 4, "groups_per_second": 1.0},
        "actor-1": {"node": "", "policy_version": None, "groups_per_second": None},
    }


def test_an_actor_that_is_gone_is_forgotten(status: Status) -> None:
    for _ in range(2):
        status.record(delivered(3, 8))
    assert status.of(state(actors={}))["actors"] == {}
    assert status.of(state(actors={"actor-0": {}}))["actors"] == {
        "actor-0": {"policy_version": None, "groups_per_second": None}
    }


def test_the_newest_events_are_at_hand_without_the_routine(status: Status) -> None:
    for number in range(8):
        status.record(ActorLeft(f"actor-{number}"))
        status.record(learned(number))
        status.record(CheckpointWritten(number, Path(), 0.0))
    recent = status.of(state())["recent_events"]
    assert [event["actor"] for event in recent] == [f"actor-{number}" for number in range(2, 8)]
    assert all(event["event"] == "actor_left" and event["time"] for event in recent)


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_whatever_was_told_can_be_sent_and_read(fact, status: Status) -> None:
    status.record(fact)
    told = status.of(state(step=5))
    assert pickle.loads(pickle.dumps(told)) == told
    assert status_text(told).startswith("step        5 of 10")


def test_actors_are_ready_once_their_node_is_known() -> None:
    assert state(actors={"actor-0": {"node": "n"}, "actor-1": {"node": ""}}).actors_ready == 1


def test_the_newest_checkpoint_is_that_of_the_largest_step(status: Status, tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for name in ("step-000009", "step-1000000", "step-000050", ".step-2000000.tmp", "step-x"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "step-1000000", (time.time() - 60,) * 2)
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 1000000
    assert 59 < found["seconds_ago"] < 65
    assert status.of(state())["last_checkpoint"]["step"] == 1000000
