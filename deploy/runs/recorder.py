"""Facts leave the loop once, here: the recorder hands each to every sink, in order.

A sink keeps or shows facts: the run folder, Prometheus, the live line, the log, the status, the trackers. One that
fails stops nothing: its failure is a fact itself, told once until the sink can take again what it failed at.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from common.errors import first_line
from common.facts import Fact, LearnerLost, Resumed, SinkFailed, Started, StepLearned
from common.log import log_context
from deploy.runs.wording import wording_of

log = logging.getLogger("vapi.driver")


class Sink(Protocol):
    def record(self, fact: Fact) -> None:
        """Take notice of a fact; facts that mean nothing to a sink pass it by."""


class Recorder:
    def __init__(self, sinks: Iterable[Sink] = ()):
        self._sinks = list(sinks)
        self._failing: dict[int, set[type[Fact]]] = {}  # sinks by their place, and what each fails at
        self._lock = threading.RLock()  # trackers tell of their failures from a thread of their own

    def add(self, *sinks: Sink) -> None:
        self._sinks += sinks

    def tell(self, fact: Fact) -> None:
        with self._lock:
            for place, sink in enumerate(self._sinks):
                try:
                    sink.record(fact)
                except Exception as error:  # whatever it is, the run is worth more
                    self._failed(place, fact, error)
                else:
                    if type(fact) in self._failing.get(place, ()):
                        del self._failing[place]

    def _failed(self, place: int, fact: Fact, error: Exception) -> None:
        is_told = place in self._failing
        self._failing.setdefault(place, set()).add(type(fact))
        if not is_told:
            log.debug("a sink failed", exc_info=error)
            name = type(self._sinks[place]).__name__
            self.tell(SinkFailed(name, f"{type(error).__name__}: {first_line(error)}"))


class LogLines:
    """A sink: each fact as a line of the log, at its level."""

    def __init__(self, make_room: Callable[[], None] = lambda: None):
        """`make_room` is called before a line is written, to end what stands unfinished on the terminal."""
        self._make_room = make_room

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned):
            log_context(step=fact.report.step)
        elif isinstance(fact, Started | Resumed | LearnerLost):
            log_context(step=fact.step)
        wording = wording_of(fact.event)
        if log.isEnabledFor(wording.level):
            self._make_room()
            log.log(wording.level, "%s", wording.of(fact.told()))
