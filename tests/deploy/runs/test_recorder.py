"""Facts reach every sink in order, a sink that fails stops nothing, and the log has a line for each fact."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.facts import ActorLeft, ActorLost, CheckpointWritten, Fact, Resumed, SinkFailed
from common.log import log_context, set_up_logging
from common.request_facts import StopAskedFor
from deploy.runs.recorder import LogLines, Recorder
from deploy.runs.wording import WORDINGS
from tests.example_facts import EXAMPLES, learned
from tests.fakes import Told


@dataclass
class Fragile:
    """A sink that raises at every fact of a kind, while it is broken."""

    fails_at: type[Fact] = Fact
    is_broken: bool = True
    kept: list[Fact] = field(default_factory=list)

    def record(self, fact: Fact) -> None:
        if self.is_broken and isinstance(fact, self.fails_at):
            raise OSError("disk full\nwith a trace below")
        self.kept.append(fact)


FAILED = SinkFailed("Fragile", "OSError: disk full")
ONE, TWO = ActorLeft("actor-1"), ActorLeft("actor-2")


def test_each_sink_is_told_each_fact_in_the_order_of_the_sinks() -> None:
    calls: list[tuple[str, Fact]] = []

    class Noting:
        def __init__(self, name: str):
            self._name = name

        def record(self, fact: Fact) -> None:
            calls.append((self._name, fact))

    recorder = Recorder([Noting("a"), Noting("b")])
    recorder.tell(ONE)
    recorder.add(Noting("c"))
    recorder.tell(TWO)
    assert calls == [("a", ONE), ("b", ONE), ("a", TWO), ("b", TWO), ("c", TWO)]


def test_a_sink_that_fails_keeps_nothing_from_the_others_and_is_told_of_once() -> None:
    before, after = Told(), Told()
    recorder = Recorder([before, Fragile(), after])
    recorder.tell(ONE)
    recorder.tell(TWO)
    assert before.facts == [ONE, FAILED, TWO]
    assert after.facts == [FAILED, ONE, TWO]


def test_a_sink_that_works_again_is_told_of_when_it_fails_anew() -> None:
    told, fragile = Told(), Fragile()
    recorder = Recorder([told, fragile])
    recorder.tell(ONE)
    fragile.is_broken = False
    recorder.tell(ONE)
    fragile.is_broken = True
    recorder.tell(ONE)
    assert told.facts == [ONE, FAILED, ONE, ONE, FAILED]


def test_a_sink_that_fails_at_one_kind_of_fact_has_not_recovered_when_another_goes_well() -> None:
    told, fragile = Told(), Fragile(fails_at=ActorLeft)
    recorder = Recorder([told, fragile])
    for _ in range(3):
        recorder.tell(ONE)
        recorder.tell(StopAskedFor())
    assert told.of(SinkFailed) == [FAILED]
    assert fragile.kept == [FAILED, *[StopAskedFor()] * 3]


def test_two_sinks_that_fail_are_each_told_of() -> None:
    told = Told()
    recorder = Recorder([Fragile(), told, Fragile()])
    for _ in range(3):
        recorder.tell(ONE)
    assert told.facts == [FAILED, FAILED, ONE, ONE, ONE]


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@pytest.fixture
def logged() -> Iterator[list[tuple[int, str]]]:
    """Level and text of each line that the driver logs."""
    log, kept = logging.getLogger("vapi.driver"), Kept()
    level = log.level
    log.addHandler(kept)
    log.setLevel(logging.DEBUG)
    yield kept.lines
    log.removeHandler(kept)
    log.setLevel(level)


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_each_fact_is_one_line_at_the_level_of_its_wording(fact, logged: list[tuple[int, str]]) -> None:
    LogLines().record(fact)
    wording = WORDINGS[fact.event]
    assert logged == [(wording.level, wording.of(fact.told()))]


@pytest.mark.parametrize(
    ("fact", "level", "line"),
    [
        (ActorLeft("actor-0"), logging.INFO, "actor-0 left"),
        (StopAskedFor(), logging.WARNING, "asked to stop"),
        (ActorLost("actor-0", "died", [3, 4]), logging.ERROR, "actor-0 lost with 2 tickets: died"),
        (learned(7), logging.DEBUG, "step 7 learned"),
        (FAILED, logging.ERROR, "Fragile failed: OSError: disk full"),
    ],
    ids=lambda value: getattr(value, "event", None),
)
def test_what_is_good_to_know_warned_of_bad_and_routine(
    fact: Fact, level: int, line: str, logged: list[tuple[int, str]]
) -> None:
    LogLines().record(fact)
    assert logged == [(level, line)]


def test_a_percent_sign_in_what_happened_is_text(logged: list[tuple[int, str]]) -> None:
    LogLines().record(ActorLost("actor-0", "100 %d gone {x}", []))
    assert logged == [(logging.ERROR, "actor-0 lost with 0 tickets: 100 %d gone {x}")]


def test_lines_say_after_how_many_steps_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    lines = LogLines()
    try:
        for fact in (learned(7), ONE, Resumed(5), TWO, CheckpointWritten(5, Path(), 1.0)):
            lines.record(fact)
    finally:
        log_context(step=0)
    written = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert written == [
        "INFO driver step 7: actor-1 left",
        "INFO driver step 5: going on from step 5",
        "INFO driver step 5: actor-2 left",
    ]
