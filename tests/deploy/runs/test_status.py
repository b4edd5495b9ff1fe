"""Rates, the time to the end, and the newest checkpoint."""

import os
import time
from pathlib import Path

from deploy.runs.pace import Pace, last_checkpoint

from common.types import GroupReceipt


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def receipt(version: int, num_groups: int) -> GroupReceipt:
    return GroupReceipt(0, version, num_groups, num_bytes=0, skipped=(), stage_seconds={})


def test_the_time_left_is_that_of_the_last_ten_steps() -> None:
    pace = Pace()
    assert pace.eta_seconds(5) is None
    for seconds in (1000.0, *[2.0] * 5, *[4.0] * 5):
        pace.learned(seconds)
    assert pace.eta_seconds(5) == 15.0


def test_an_actors_rate_counts_from_its_oldest_recent_delivery_to_now() -> None:
    clock = Clock()
    pace = Pace(clock)
    states = {"actor-0": {"node": "n"}, "actor-1": {"node": ""}}
    pace.delivered("actor-0", receipt(3, 8))
    assert pace.actors(states)["actor-0"] == {"node": "n", "policy_version": 3, "groups_per_second": None}
    clock.now = 102.0
    pace.delivered("actor-0", receipt(4, 6))
    assert pace.actors(states)["actor-0"]["groups_per_second"] == 3.0
    clock.now = 106.0  # nothing more has come: it slows down
    assert pace.actors(states) == {
        "actor-0": {"node": "n", "policy_version": 4, "groups_per_second": 1.0},
        "actor-1": {"node": "", "policy_version": None, "groups_per_second": None},
    }


def test_an_actor_that_is_gone_is_forgotten() -> None:
    pace = Pace()
    for _ in range(2):
        pace.delivered("actor-0", receipt(3, 8))
    assert pace.actors({}) == {}
    assert pace.actors({"actor-0": {}})["actor-0"] == {"policy_version": None, "groups_per_second": None}


def test_the_newest_checkpoint_is_that_of_the_largest_step(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for name in ("step-000009", "step-1000000", "step-000050", ".step-2000000.tmp", "step-x"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "step-1000000", (time.time() - 60,) * 2)
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 1000000
    assert 59 < found["seconds_ago"] < 65
