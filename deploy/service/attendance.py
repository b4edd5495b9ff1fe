"""The driver's attention outside its loop, while it waits for processes or scores: it beats and can be asked."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deploy.cluster.stop_signals import StopAsked
from deploy.service.control_actor import ControlLink
from deploy.service.training_loop import TrainingLoop


class Attendance:
    """Called in every wait, with what the driver is at. Raises StopAsked where `stop` has asked for it."""

    def __init__(self, run: str, control: ControlLink, beat: Callable[[str | None], None]):
        self._control, self._beat = control, beat
        self._phase = ""
        self._status: Callable[[], dict[str, Any]] = lambda: {"run": run}
        self._is_left = False

    def __call__(self, phase: str | None = None) -> None:
        self._beat(phase)
        self._phase = phase or self._phase
        if not self._is_left and self._control.stop_is_asked(lambda: self._status() | {"phase": self._phase}):
            raise StopAsked(signal.SIGTERM, "")

    @contextmanager
    def left_to(self, loop: TrainingLoop) -> Iterator[None]:
        """During the block the loop takes the requests; after it, its last status is told."""
        self._is_left = True
        try:
            yield
        finally:
            self._is_left = False
            self._status = loop.status_now
