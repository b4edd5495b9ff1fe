"""Passes recorded facts to the trackers, in its own thread, so that the driver never waits for them.

The queue is bounded: if trackers fall too far behind, new records are dropped, and this is reported once.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.config.recipe import Recipe
from common.facts import (
    Ended,
    Fact,
    PictureSaved,
    Resumed,
    Scored,
    StepLearned,
    TrackerFailed,
    TrackingBehind,
)
from deploy.runs.recorder import Recorder
from deploy.runs.tracking.tracker import Tracker, open_trackers

log = logging.getLogger("vapi.tracking")

CAPACITY = 10_000
CLOSE_SECONDS = 60.0


@contextmanager
def tracking(recipe: Recipe, folder: Path, recorder: Recorder) -> Iterator[None]:
    """During the block, the recipe's trackers receive what is recorded."""
    trackers = open_trackers(recipe, folder)
    if not trackers:
        yield
        return
    following = Following(trackers, recorder.tell)
    recorder.add(following)
    try:
        yield
    finally:
        following.close()


class Following:
    """The recorder's sink for trackers."""

    def __init__(self, trackers: dict[str, Tracker], tell: Callable[[Fact], None]):
        """`tell` receives the trackers' failures."""
        self._trackers = trackers
        self._tell = tell
        self._queue: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue(CAPACITY)
        self._status = "failed"  # until the run reports its end
        self._has_dropped = False
        self._thread = threading.Thread(target=self._carry, name="tracking", daemon=True)
        self._thread.start()

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned):
            self._pass_on("metrics", fact.metrics())
        elif isinstance(fact, Scored):
            self._pass_on("evaluation", {"step": fact.step, **fact.scores})
        elif isinstance(fact, PictureSaved):
            self._pass_on("picture", fact.step, fact.path)
        elif isinstance(fact, Resumed):
            self._pass_on("rewind", fact.step)
        elif isinstance(fact, Ended):
            self._status = fact.status

    def _pass_on(self, what: str, *facts: Any) -> None:
        try:
            self._queue.put_nowait((what, facts))
        except queue.Full:
            if not self._has_dropped:
                self._has_dropped = True
                self._tell(TrackingBehind(CAPACITY))

    def close(self) -> None:
        """Pass on the rest and close the trackers; waits at most CLOSE_SECONDS for each."""
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            log.warning("trackers do not keep up: what is left is given up")
            return
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("trackers have not closed within %.0f s: they are given up", CLOSE_SECONDS)

    def _carry(self) -> None:
        while (told := self._queue.get()) is not None:
            self._call(*told)
        self._call("close", (self._status,))

    def _call(self, what: str, facts: tuple[Any, ...]) -> None:
        """Call every tracker; one that fails is reported and dropped."""
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, what)(*facts)
            except Exception as error:  # a library may raise anything, and the run matters more
                del self._trackers[name]
                self._tell(TrackerFailed(name, f"{type(error).__name__}: {error}"))
