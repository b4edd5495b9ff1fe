"""The report of a run that is at work, which the driver serves."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from deploy.reporting.report import render
from deploy.runs.records import read_run

REFRESH_SECONDS = 10
"""How often an open page asks for a newer one."""
MAX_SHARE = 0.05
"""Of the driver's time, that goes into pages."""


class LiveReport:
    """Makes the page where somebody asks, and keeps it for a while: however many look, it costs little."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic):
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._page = ""
        self._kept_until = float("-inf")

    def __call__(self) -> str:
        with self._lock:
            began = self._clock()
            if began >= self._kept_until:
                self._page = render(read_run(str(self._folder)), datetime.now(UTC), REFRESH_SECONDS)
                ended = self._clock()
                self._kept_until = ended + max(REFRESH_SECONDS / 2, (ended - began) / MAX_SHARE)
            return self._page
