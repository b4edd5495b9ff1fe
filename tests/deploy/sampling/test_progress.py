"""The progress line on a terminal and elsewhere."""

import io
from types import SimpleNamespace

import pytest

from deploy.sampling import progress as module
from deploy.sampling.progress import PLAIN_EVERY_SECONDS, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_rate_is_of_what_is_drawn_now(clock: SimpleNamespace) -> None:
    stream = Terminal()
    progress = Progress(1000, num_done=600, stream=stream)
    clock.now += 8
    progress.add(100)
    assert stream.getvalue() == "\r\x1b[Kpicture 700/1000  12.5 pictures/s  ETA 24 s"
    progress.add(300)
    assert stream.getvalue().endswith("picture 1000/1000  50.0 pictures/s  ETA 0 s\n")
    assert stream.getvalue().count("\n") == 1


def test_elsewhere_a_line_is_printed_now_and_then_and_at_the_end(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = Progress(6, num_done=0, stream=stream)
    for _ in range(6):
        clock.now += PLAIN_EVERY_SECONDS / 2
        progress.add(1)
    printed = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert printed == ["3/6", "6/6"]
