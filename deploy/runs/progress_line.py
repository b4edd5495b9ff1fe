"""The line that shows how far a command is: rewritten in place on a terminal, printed now and then elsewhere."""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, TextIO

from common.config.service import LogSection
from common.facts import Ended, Fact, StepLearned

if TYPE_CHECKING:
    from common.image_shards import ShardFacts
    from learner.pretraining.loop import StageProgress

PRINT_EVERY_SECONDS = 10.0
RECENT_STEPS = 10  # that the rates of a training are means over
UNKNOWN_COLUMNS = 80  # of a terminal that does not say how wide it is
GAP = "  "  # between the parts of a text

log = logging.getLogger("vapi.progress")


class _LogLines(StringIO):
    """A stream whose lines are log lines."""

    def write(self, text: str) -> int:
        log.info("%s", text.rstrip())
        return len(text)


def progress_stream(section: LogSection) -> TextIO:
    """Where progress goes: to standard error, as a log line where those are JSON."""
    return _LogLines() if section.format == "json" else sys.stderr


class ProgressLine:
    """On a terminal every text replaces the one before, cut to the width that the terminal has then. Elsewhere the
    first is printed, the last, and one every PRINT_EVERY_SECONDS."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream or sys.stderr
        self._clock = clock
        self._start = clock()
        self._printed_at = -float("inf")
        self._unwritten = ""  # what `close` has yet to write

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._start

    def show(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{fitted(text, _columns(self._stream) - 1)}")  # the last one may wrap
            self._unwritten = "\n"
        elif self._clock() - self._printed_at >= PRINT_EVERY_SECONDS:
            self._stream.write(f"{text}\n")
            self._printed_at, self._unwritten = self._clock(), ""
        else:
            self._unwritten = f"{text}\n"
        self._stream.flush()

    def close(self) -> None:
        """End the line, so that what follows starts on one of its own."""
        if self._unwritten:
            self._stream.write(self._unwritten)
            self._stream.flush()
        self._unwritten = ""


class StepLine:
    """A sink: the line of a training, with the means of its recent steps."""

    def __init__(self, num_steps: int, text: Callable[[Sequence[Mapping[str, Any]], int], str], stream: TextIO):
        """`text` is made of the newest lines of metrics.jsonl and the number of steps."""
        self._num_steps, self._text = num_steps, text
        self._line = ProgressLine(stream)
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_STEPS)

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned):
            self._recent.append(fact.metrics())
            self._line.show(self._text(self._recent, self._num_steps))
        elif isinstance(fact, Ended):
            self.close()

    def close(self) -> None:
        self._line.close()


def fitted(text: str, columns: int) -> str:
    """`text` without its parts before the last, as many as have to go, and cut where that is not enough."""
    *parts, last = text.split(GAP)
    while len(GAP.join([*parts, last])) > columns and len(parts) > 1:
        parts.pop()
    return GAP.join([*parts, last])[:columns]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or UNKNOWN_COLUMNS
    except OSError:
        return UNKNOWN_COLUMNS


def service_text(recent: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    """Of `train`; `recent` are the newest lines of metrics.jsonl."""
    waited = _sum(recent, "wait_seconds") / max(_sum(recent, "step_seconds"), 1e-9)
    newest = recent[-1]
    staleness, actors = f"staleness {newest['staleness_max']}", f"{newest['num_actors']} actors"
    actors += f", {newest['num_judges']} judges" if newest.get("num_judges") else ""
    learned, left = _learned(recent, num_steps), _left(recent, num_steps)
    return GAP.join([learned, staleness, f"learner waits {waited:.0%}", actors, left])


def local_text(recent: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    """Of `local`, which has no actors to wait for, and no groups of older policies."""
    return GAP.join([_learned(recent, num_steps), _left(recent, num_steps)])


def shards_text(made: Sequence["ShardFacts"], num_left: int, num_shards: int, seconds: float) -> str:
    """Of `prepare`; `made` are the shards of this call."""
    num_rows, num_skipped = sum(facts.num_rows for facts in made), sum(len(facts.skipped) for facts in made)
    per_second = (num_rows + num_skipped) / max(seconds, 1e-9)
    return (
        f"shard {num_shards - num_left}/{num_shards}  {num_rows} pictures  {num_skipped} skipped  "
        f"{per_second:.1f}/s  ETA {num_left * seconds / len(made):.0f} s"
    )


def pictures_text(num_drawn: int, num_left: int, num_pictures: int, seconds: float) -> str:
    """Of `sample`; `num_drawn` are of this call."""
    per_second = num_drawn / max(seconds, 1e-9)
    eta = num_left / max(per_second, 1e-9)
    return f"picture {num_pictures - num_left}/{num_pictures}  {per_second:.1f} pictures/s  ETA {eta:.0f} s"


def chunks_text(what: str, num_done: int, num_chunks: int, seconds: float) -> str:
    """Of a scoring."""
    eta = (num_chunks - num_done) * seconds / max(num_done, 1)
    return f"scoring {what}: {num_done}/{num_chunks}  {seconds:.0f} s  ETA {eta:.0f} s"


def stage_text(name: str, progress: "StageProgress", num_done: int, seconds: float) -> str:
    """Of a stage of `pretrain`; `num_done` of its steps are of this call."""
    eta = (progress.num_steps - progress.step) * seconds / num_done
    shown = [f"{key} {value:.4g}" for key, value in progress.shown.items()]
    step = f"{name}: step {progress.step}/{progress.num_steps}"
    return GAP.join([step, f"loss {progress.loss:.4f}", *shown, f"{seconds:.0f} s", f"ETA {eta:.0f} s"])


def _learned(recent: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    line = recent[-1]
    groups_per_second = _sum(recent, "num_groups") / max(_sum(recent, "step_seconds"), 1e-9)
    return (
        f"step {line['step']}/{num_steps}  reward {line['reward_mean']:.4f}  CE {line['ce_prior']:.3f}  "
        f"{groups_per_second:.1f} groups/s"
    )


def _left(recent: Sequence[Mapping[str, Any]], num_steps: int) -> str:
    eta = (num_steps - recent[-1]["step"]) * _sum(recent, "step_seconds") / len(recent)
    return f"ETA {eta:.0f} s"


def _sum(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(line[key] for line in lines)
