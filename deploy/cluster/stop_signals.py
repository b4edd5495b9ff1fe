"""SIGINT and SIGTERM from a run's first second to its last: the first ends it in good order, a second at once.

What is at work when the first comes is broken off by `StopAsked`, unless it has said that it ends by itself.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_PRESS_SECONDS = 0.5  # `timeout` and some shells signal a process twice, as itself and in its group

log = logging.getLogger("vapi.driver")


class StopAsked(BaseException):
    def __init__(self, number: int, by: str):
        super().__init__(number)
        self.number = number
        self.by = by  # such as SIGINT


class StopSignals:
    def __init__(
        self,
        end: Callable[[int], None] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`end` ends this process with an exit code; Ray ends what it had started."""
        self._end, self._clock = end, clock
        self._pass_on: Callable[[StopAsked], None] | None = None
        self._first: float | None = None  # when it came
        self._former: dict[int, Any] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals during the block; one inside another changes nothing."""
        if self._former or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._former = {number: signal.getsignal(number) for number in SIGNALS}
        self.reinstall()
        try:
            yield
        finally:
            former, self._former = self._former, {}
            for number, handler in former.items():
                signal.signal(number, handler)

    def reinstall(self) -> None:
        """After ray.init, which puts a handler of its own in place."""
        for number in self._former:
            signal.signal(number, self._handle)

    @contextmanager
    def passed_to(self, stop: Callable[[StopAsked], None]) -> Iterator[None]:
        """During the block the first signal is given to `stop`, and breaks nothing off."""
        before, self._pass_on = self._pass_on, stop
        try:
            yield
        finally:
            self._pass_on = before

    def leave_alone(self) -> None:
        """The run has ended, and what it holds is closed: the first signal breaks nothing off any more."""
        self._pass_on = lambda _: None

    def _handle(self, number: int, _frame: object) -> None:
        now, name = self._clock(), signal.Signals(number).name
        if self._first is not None:
            if now - self._first >= SAME_PRESS_SECONDS:
                os.write(2, f"\n{name} again: ended at once\n".encode())
                self._end(128 + number)
            return
        self._first = now
        asked = StopAsked(number, name)
        if self._pass_on is None:
            log.warning("%s: stopping; once more ends at once", name)
            raise asked
        log.warning("%s: stopping after what is at work; once more ends at once", name)
        self._pass_on(asked)
