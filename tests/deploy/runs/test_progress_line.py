"""What the line says, and how it is shown on a terminal and elsewhere."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, TextIO

import pytest

from common.config.service import LogSection
from common.image_shards import ShardFacts
from common.log import set_up_logging
from deploy.runs.progress_line import (
    ProgressLine,
    chunks_text,
    fitted,
    local_text,
    pictures_text,
    progress_stream,
    service_text,
    shards_text,
    stage_text,
)
from learner.pretraining.loop import StageProgress


class Clock:
    """Stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A pseudo-terminal: the stream to write to, and what then stands on the screen."""

    def __init__(self, stream: TextIO, screen: int):
        self.stream = stream
        self._screen = screen

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def sent(self) -> str:
        """What came since the last call, up to a mark: a read may bring less."""
        self.stream.write("\0")
        self.stream.flush()
        sent = b""
        while not sent.endswith(b"\0"):
            sent += os.read(self._screen, 1 << 16)
        return sent[:-1].decode()

    def rows(self, columns: int) -> list[str]:
        """As a terminal of so many columns shows it: a text of their number or more goes on in the next row."""
        rows, at = [""], 0
        for piece in re.findall(r"\r|\n|\x1b\[K|.", self.sent()):
            if piece == "\r":
                at = 0
            elif piece == "\x1b[K":
                rows[-1] = rows[-1][:at]
            elif piece == "\n":
                rows.append("")
            else:
                rows[-1], at = rows[-1][:at] + piece + rows[-1][at + 1 :], at + 1
                if at == columns:
                    rows, at = [*rows, ""], 0
        return rows


@contextmanager
def terminal(columns: int) -> Iterator[Terminal]:
    screen, end = pty.openpty()
    with os.fdopen(end, "w") as stream:
        own = Terminal(stream, screen)
        own.resize(columns)
        yield own
    os.close(screen)


def step(number: int, step_seconds: float = 2.0) -> dict[str, Any]:
    return {
        "step": number,
        "reward_mean": -0.12345,
        "ce_prior": 2.0,
        "num_groups": 32,
        "step_seconds": step_seconds,
        "wait_seconds": 0.5,
        "staleness_max": 1,
        "num_actors": 2,
    }


def test_training_says_where_it_is_how_fast_and_when_it_ends() -> None:
    assert service_text([step(10)], 50) == (
        "step 10/50  reward -0.1235  CE 2.000  16.0 groups/s  staleness 1  learner waits 25%  2 actors  ETA 80 s"
    )


def test_rates_are_means_over_the_steps_given() -> None:
    recent = [step(10, step_seconds=1.0), step(11, step_seconds=7.0)]
    assert service_text(recent, 20).endswith("8.0 groups/s  staleness 1  learner waits 12%  2 actors  ETA 36 s")


def test_training_in_one_process_says_nothing_of_actors() -> None:
    assert local_text([step(10)], 50) == "step 10/50  reward -0.1235  CE 2.000  16.0 groups/s  ETA 80 s"


def test_the_rate_of_pictures_is_of_those_drawn_now() -> None:
    assert pictures_text(100, 300, 1000, 8.0) == "picture 700/1000  12.5 pictures/s  ETA 24 s"
    assert pictures_text(400, 0, 1000, 8.0) == "picture 1000/1000  50.0 pictures/s  ETA 0 s"


def test_the_chunks_of_a_scoring_are_counted() -> None:
    assert chunks_text("the base", 10, 40, 20.0) == "scoring the base: 10/40  20 s  ETA 60 s"
    assert chunks_text("the base", 40, 40, 80.0) == "scoring the base: 40/40  80 s  ETA 0 s"


def test_shards_made_now_are_summed_up_and_the_former_ones_only_counted() -> None:
    made = [ShardFacts(70, (("a.png", "broken"),)), ShardFacts(79, ())]
    assert shards_text(made, 3, 10, 30.0) == "shard 7/10  149 pictures  1 skipped  5.0/s  ETA 45 s"


def test_a_stage_that_goes_on_ends_when_its_own_steps_say() -> None:
    progress = StageProgress(30, 100, 0.5, {"token accuracy": 0.25})
    assert stage_text("policy", progress, 10, 20.0) == (
        "policy: step 30/100  loss 0.5000  token accuracy 0.25  20 s  ETA 140 s"
    )


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (22, "one 1  two 2  ETA 3 s"),
        (21, "one 1  two 2  ETA 3 s"),
        (20, "one 1  ETA 3 s"),
        (13, "one 1  ETA 3 "),
        (3, "one"),
    ],
)
def test_a_text_that_is_too_long_loses_its_inner_parts_first(columns: int, shown: str) -> None:
    assert fitted("one 1  two 2  ETA 3 s", columns) == shown


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "step 10/50  reward -0.1235  CE 2.000  16.0 groups/s  staleness 1  ETA 80 s"),
        (60, "step 10/50  reward -0.1235  CE 2.000  ETA 80 s"),
        (20, "step 10/50  ETA 80 "),
    ],
)
def test_a_terminal_of_any_width_shows_one_row_however_often_it_is_rewritten(columns: int, shown: str) -> None:
    with terminal(columns) as own:
        with closing(ProgressLine(own.stream)) as line:
            for _ in range(3):
                line.show(service_text([step(10)], 50))
        assert own.rows(columns) == [shown, ""]


def test_a_terminal_that_does_not_say_how_wide_it_is_has_80_columns() -> None:
    with terminal(0) as own:
        ProgressLine(own.stream).show("x" * 100)
        assert own.sent() == "\r\x1b[K" + "x" * 79


def test_a_terminal_may_be_resized() -> None:
    with terminal(80) as own:
        line = ProgressLine(own.stream)
        line.show("x" * 100)
        own.resize(30)
        line.show("x" * 100)
        assert own.sent().endswith("\r\x1b[K" + "x" * 29)


def test_a_terminals_line_is_ended_once() -> None:
    with terminal(80) as own:
        line = ProgressLine(own.stream)
        line.show("one")
        line.show("1")
        line.close()
        line.close()
        assert own.sent() == "\r\x1b[Kone\r\x1b[K1\r\n"


def test_elsewhere_the_first_text_the_last_and_one_every_ten_seconds_are_printed() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(stream, clock)
    for number in range(1, 7):
        line.show(f"step {number}")
        clock.now += 5
    line.close()
    line.close()
    assert stream.getvalue() == "step 1\nstep 3\nstep 5\nstep 6\n"


def test_what_is_printed_elsewhere_is_not_cut() -> None:
    stream = io.StringIO()
    ProgressLine(stream).show("x" * 300)
    assert stream.getvalue() == "x" * 300 + "\n"


def test_seconds_are_those_since_the_line_began() -> None:
    clock = Clock()
    line = ProgressLine(io.StringIO(), clock)
    clock.now += 7
    assert line.seconds == 7


def test_closing_before_the_first_text_prints_nothing() -> None:
    stream = io.StringIO()
    ProgressLine(stream).close()
    assert stream.getvalue() == ""


def test_progress_is_a_log_line_where_those_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json")
    with closing(ProgressLine(progress_stream(LogSection(format="json")))) as line:
        line.show("step 1/2")
        line.show("step 2/2")
    said = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["step 1/2", "step 2/2"]
    assert progress_stream(LogSection()) is sys.stderr
