"""Seconds by stage."""

from types import SimpleNamespace

import pytest

from common import clock as clock_module
from common.clock import StageClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(clock_module, "perf_counter", lambda: now.seconds)
    return now


def test_the_seconds_of_a_stage_add_up(now: SimpleNamespace) -> None:
    clock = StageClock()
    for stage, seconds in (("decode", 1.0), ("read", 0.25), ("decode", 2.0)):
        with clock(stage):
            now.seconds += seconds
        now.seconds += 100  # between stages
    assert clock.seconds == {"decode": 3.0, "read": 0.25}


def test_a_stage_that_fails_is_counted_too(now: SimpleNamespace) -> None:
    clock = StageClock()

    def fail() -> None:
        with clock("read"):
            now.seconds += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clock.seconds == {"read": 1.0}
