"""The line that shows a run's progress: rewritten in place on a terminal, printed now and then elsewhere."""

import logging
import sys
import time
from collections import deque
from io import StringIO
from typing import Any, TextIO

from common.config.service import LogSection
from common.facts import Ended, Fact, StepLearned

PLAIN_EVERY_SECONDS = 10.0

log = logging.getLogger("vapi.progress")


class _LogLines(StringIO):
    """A stream whose lines are log lines."""

    def write(self, text: str) -> int:
        log.info("%s", text.rstrip())
        return len(text)


def progress_stream(section: LogSection) -> TextIO:
    """Where a run's progress goes: to standard error, as a log line where those are JSON."""
    return _LogLines() if section.format == "json" else sys.stderr


class LiveLine:
    def __init__(self, num_steps: int, stream: TextIO = sys.stderr):
        self._num_steps = num_steps
        self._stream = stream
        self._recent: deque[dict[str, Any]] = deque(maxlen=10)
        self._last_plain = 0.0
        self._open = False

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned):
            self.step(fact.metrics())
        elif isinstance(fact, Ended):
            self.close()

    def step(self, line: dict[str, Any]) -> None:
        """Show a line of metrics.jsonl."""
        self._recent.append(line)
        text = self._text(line)
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{text}")
            self._open = True
        elif time.monotonic() - self._last_plain > PLAIN_EVERY_SECONDS or line["step"] == self._num_steps:
            self._last_plain = time.monotonic()
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line, so that what follows starts on one of its own."""
        if self._open:
            self._stream.write("\n")
            self._open = False

    def _text(self, line: dict[str, Any]) -> str:
        seconds = max(1e-9, sum(each["step_seconds"] for each in self._recent))
        groups_per_second = sum(each["num_groups"] for each in self._recent) / seconds
        waited = sum(each["wait_seconds"] for each in self._recent) / seconds
        eta = (self._num_steps - line["step"]) * seconds / len(self._recent)
        return (
            f"step {line['step']}/{self._num_steps}  reward {line['reward_mean']:.4f}  CE {line['ce_prior']:.3f}  "
            f"{groups_per_second:.1f} groups/s  staleness {line['staleness_max']}  "
            f"learner waits {waited:.0%}  {line['num_actors']} actors  ETA {eta:.0f} s"
        )
