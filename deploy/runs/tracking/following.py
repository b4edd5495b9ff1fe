"""Carries what is written to the run folder to the trackers, on a thread of its own: the driver waits for none.

Bounded: where trackers fall this far behind, what comes is dropped and told once.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common.config.recipe import Recipe
from deploy.runs.run_folder import RunFolder
from deploy.runs.tracking.tracker import Tracker, open_trackers

log = logging.getLogger("vapi.tracking")

CAPACITY = 10_000
CLOSE_SECONDS = 60.0


@contextmanager
def tracking(recipe: Recipe, folder: RunFolder) -> Iterator[None]:
    """Follow `folder` with the recipe's trackers for the time of the block."""
    trackers = open_trackers(recipe, folder.path)
    if not trackers:
        yield
        return
    following = Following(trackers, folder.event)
    folder.followers.append(following.tell)
    try:
        yield
    finally:
        folder.followers.remove(following.tell)
        following.close()


class Following:
    def __init__(self, trackers: dict[str, Tracker], on_event: Callable[..., None]):
        """`on_event` is told of trackers that failed."""
        self._trackers = trackers
        self._on_event = on_event
        self._queue: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue(CAPACITY)
        self._status = "failed"  # until a summary says otherwise
        self._has_dropped = False
        self._thread = threading.Thread(target=self._carry, name="tracking", daemon=True)
        self._thread.start()

    def tell(self, what: str, *facts: Any) -> None:
        """Pass on a call of a tracker's method; `summary` gives the status to close with."""
        if what == "summary":
            self._status = facts[0]["status"]
            return
        try:
            self._queue.put_nowait((what, facts))
        except queue.Full:
            if not self._has_dropped:
                self._has_dropped = True
                self._on_event("tracking_behind", capacity=CAPACITY)

    def close(self) -> None:
        """Pass on what is left, and close the trackers; waits CLOSE_SECONDS at the most."""
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
        """On every tracker; one that fails is told of and left out from then on."""
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, what)(*facts)
            except Exception as error:  # whatever a library may raise: the run is worth more
                del self._trackers[name]
                log.warning("%s failed, and gets nothing more: %s", name, error)
                self._on_event("tracker_failed", tracker=name, reason=f"{type(error).__name__}: {error}")
