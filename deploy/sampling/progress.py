"""The line that says how far `sample` is: rewritten in place on a terminal, printed now and then elsewhere."""

import sys
import time
from typing import TextIO

PLAIN_EVERY_SECONDS = 10.0


class Progress:
    def __init__(self, num_pictures: int, num_done: int, stream: TextIO | None = None):
        """`num_done` were there before; the rate is of what is drawn now."""
        self._num_pictures = num_pictures
        self._num_before = self._num_done = num_done
        self._stream = stream or sys.stderr
        self._start = self._last_plain = time.monotonic()

    def add(self, num_pictures: int) -> None:
        self._num_done += num_pictures
        is_last = self._num_done == self._num_pictures
        now = time.monotonic()
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{self._text(now - self._start)}" + ("\n" if is_last else ""))
        elif is_last or now - self._last_plain > PLAIN_EVERY_SECONDS:
            self._last_plain = now
            self._stream.write(self._text(now - self._start) + "\n")
        self._stream.flush()

    def _text(self, seconds: float) -> str:
        per_second = (self._num_done - self._num_before) / max(seconds, 1e-9)
        eta = (self._num_pictures - self._num_done) / max(per_second, 1e-9)
        return f"picture {self._num_done}/{self._num_pictures}  {per_second:.1f} pictures/s  ETA {eta:.0f} s"
