"""The line that says how far `prepare` is: rewritten in place on a terminal, printed now and then elsewhere."""

import sys
import time
from typing import TextIO

PLAIN_EVERY_SECONDS = 10.0


class Progress:
    def __init__(self, num_shards: int, num_done: int, stream: TextIO | None = None):
        self._num_shards = num_shards
        self._num_done = num_done  # shards, those of an earlier call included
        self._num_new = self._num_rows = self._num_skipped = 0  # of this call
        self._stream = stream or sys.stderr
        self._start = self._last_plain = time.monotonic()

    def add(self, num_rows: int, num_skipped: int) -> None:
        """One more shard is there."""
        self._num_done += 1
        self._num_new += 1
        self._num_rows += num_rows
        self._num_skipped += num_skipped
        now = time.monotonic()
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{self._text(now - self._start)}")
            self._stream.write("\n" if self._num_done == self._num_shards else "")
        elif now - self._last_plain > PLAIN_EVERY_SECONDS or self._num_done == self._num_shards:
            self._last_plain = now
            self._stream.write(self._text(now - self._start) + "\n")
        self._stream.flush()

    def _text(self, seconds: float) -> str:
        per_second = (self._num_rows + self._num_skipped) / max(seconds, 1e-9)
        eta = (self._num_shards - self._num_done) * seconds / self._num_new
        return (
            f"shard {self._num_done}/{self._num_shards}  {self._num_rows} pictures  {self._num_skipped} skipped  "
            f"{per_second:.1f}/s  ETA {eta:.0f} s"
        )
