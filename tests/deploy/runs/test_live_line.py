"""The progress line on a terminal and elsewhere."""

import io
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.service import LogSection
from common.log import set_up_logging
from deploy.runs import live_line
from deploy.runs.live_line import PLAIN_EVERY_SECONDS, LiveLine, progress_stream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(step: int, step_seconds: float = 2.0) -> dict[str, Any]:
    return {
        "step": step,
        "reward_mean": -0.12345,
        "ce_prior": 2.0,
        "num_groups": 32,
        "step_seconds": step_seconds,
        "wait_seconds": 0.5,
        "staleness_max": 1,
        "num_actors": 2,
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(live_line, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_line_says_where_the_run_is_and_when_it_ends() -> None:
    stream = Terminal()
    LiveLine(50, stream).step(line(10))
    assert stream.getvalue() == (
        "\r\x1b[Kstep 10/50  reward -0.1235  CE 2.000  16.0 groups/s  staleness 1  learner waits 25%  2 actors  "
        "ETA 80 s"
    )


def test_rates_are_means_over_the_last_ten_steps() -> None:
    stream = Terminal()
    live = LiveLine(20, stream)
    live.step(line(1, step_seconds=1000.0))
    for step in range(2, 12):
        live.step(line(step, step_seconds=4.0))
    assert (
        stream.getvalue()
        .rpartition("\r")[2]
        .endswith("8.0 groups/s  staleness 1  learner waits 12%  2 actors  ETA 36 s")
    )


def test_a_terminals_line_is_rewritten_in_place_and_ended_once() -> None:
    stream = Terminal()
    live = LiveLine(3, stream)
    for step in (1, 2, 3):
        live.step(line(step))
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().count("\r\x1b[K") == 3
    live.close()
    live.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")


def test_elsewhere_a_line_is_printed_now_and_then_and_at_the_end(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    live = LiveLine(9, stream)
    for step in range(1, 10):
        clock.now += PLAIN_EVERY_SECONDS / 2
        live.step(line(step))
    live.close()
    printed = stream.getvalue().splitlines()
    assert [text.split()[1] for text in printed] == ["1/9", "4/9", "7/9", "9/9"]
    assert "\r" not in stream.getvalue()


def test_closing_before_the_first_step_prints_nothing() -> None:
    stream = Terminal()
    LiveLine(3, stream).close()
    assert stream.getvalue() == ""


def test_progress_is_a_log_line_where_those_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json")
    live = LiveLine(1, progress_stream(LogSection(format="json")))
    live.step(line(1))
    live.close()
    (said,) = capsys.readouterr().err.splitlines()
    assert json.loads(said)["message"].startswith("step 1/1  reward -0.1235")
    assert progress_stream(LogSection()) is sys.stderr
