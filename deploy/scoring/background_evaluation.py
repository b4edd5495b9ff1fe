"""Scores during training: actors run the chunks between their tickets, a thread scores, the learner goes on."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

from actors.evaluation.chunk_queue import ChunkQueue
from actors.evaluation.chunks import EvaluationChunk
from actors.evaluation.pictures import Panel, grid, save_panels
from actors.pool_events import PublishedPolicy
from common.atomic import storage_problem
from common.facts import Fact, PictureSaved, Scored, ScoringStarted
from deploy.scoring.scorer import Evaluation, Scorer

log = logging.getLogger("vapi.evaluation")


COLUMNS = 10


def tell_evaluation(tell: Callable[[Fact], None], samples: Path, step: int, evaluation: Evaluation) -> None:
    """Report the scores, and save the first pictures as `samples`/step-NNNNNN.png."""
    tell(Scored(step, evaluation.scores))
    path = samples / f"step-{step:06d}.png"
    if save_picture(path, [(f"step {step}", grid(evaluation.pictures_NHWC, COLUMNS, evaluation.names))]):
        tell(PictureSaved(step, path))


def save_picture(path: Path, panels: Sequence[Panel]) -> bool:
    """Whether the picture was written: a run is worth more than one."""
    try:
        save_panels(path, panels)
    except OSError as error:
        log.warning("the picture %s is left out: %s", path.name, storage_problem(error) or error)
        return False
    return True


class _GivenUpError(Exception):
    """The evaluation has no results."""


class BackgroundEvaluation:
    """One evaluation at a time. All methods are for the driver's loop; none blocks except `wait` and `close`."""

    def __init__(self, scorer: Scorer, temperature: float, tell: Callable[[Fact], None], samples: Path):
        """Pictures go to the folder `samples`."""
        self._scorer = scorer
        self._tell = tell
        self._samples = samples
        self._temperature = temperature
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._future: Future[list[Evaluation]] | None = None
        self._queue: ChunkQueue | None = None
        self._results: dict[int, Any] = {}
        self._chunks_done = Event()
        self._published: PublishedPolicy | None = None
        self._waiting: PublishedPolicy | None = None
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        return self._future is not None

    def start(self, published: PublishedPolicy) -> None:
        """Score `published` after the running evaluation. One evaluation can wait; a third is skipped."""
        if self._waiting is not None:
            log.warning("step %d is not scored: two evaluations are still to be done", published.version)
        elif self.is_running:
            self._waiting = published
        else:
            self._published = published
            self._tell(ScoringStarted(published.version, "the policy"))
            self._future = self._thread.submit(
                self._scorer.evaluate, self._run_chunks, temperature=self._temperature, num_seeds=1
            )

    def take(self, actor: str) -> tuple[int, EvaluationChunk, PublishedPolicy] | None:
        """A chunk for `actor`, with its index and the weights to run it with."""
        taken = self._queue.take(actor) if self._queue else None
        if taken is None or self._published is None:
            return None
        return *taken, self._published

    def pass_on(self, index: int) -> None:
        """Judges are to complete the chunk; its actor is free for another."""
        assert self._queue is not None
        self._queue.pass_on(index)

    def deliver(self, index: int, result: Any) -> None:
        assert self._queue is not None
        self._results[index] = result
        self._queue.finish(index)
        self._end_if_done()

    def give_back(self, actor: str) -> None:
        """Return the chunk that `actor` had, and did not do, to the queue."""
        if self._queue:
            self._queue.give_back(actor)
            self._end_if_done()

    def redo(self, index: int) -> None:
        """Return a chunk that was lost, whoever had it, to the queue."""
        if self._queue:
            self._queue.redo(index)
            self._end_if_done()

    def renew(self, published: PublishedPolicy) -> None:
        """Take the snapshot of `published` for what is scored, or waits to be, under its version."""
        if self._published is not None and self._published.version == published.version:
            self._published = published
        if self._waiting is not None and self._waiting.version == published.version:
            self._waiting = published

    def give_up(self) -> None:
        """The policy's weights are gone: end the evaluation at work, once no actor or judge has a chunk of it."""
        if self._queue:
            self._queue.give_up()
            self._end_if_done()

    def wait(self, seconds: float) -> None:
        """Wait for the thread when there is nothing else to do."""
        if self._future is not None:
            wait([self._future], timeout=seconds)

    def record(self) -> None:
        """Report the scores and pictures of a finished evaluation; errors of the scoring are raised here."""
        if self._future is None or self._published is None or not self._future.done():
            return
        future, version = self._future, self._published.version
        self._future = self._published = None
        try:
            (evaluation,) = future.result()
        except _GivenUpError:
            log.warning("step %d is not scored: its weights were lost with a node", version)
        else:
            tell_evaluation(self._tell, self._samples, version, evaluation)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.start(waiting)

    def close(self) -> None:
        """Abandon unfinished work."""
        self._is_closed = True
        self._chunks_done.set()
        self._thread.shutdown()

    def _end_if_done(self) -> None:
        if self._queue is not None and self._queue.is_done:
            self._queue = None
            self._chunks_done.set()

    def _run_chunks(self, chunks: Sequence[EvaluationChunk]) -> list[Any]:
        """In the thread: offer `chunks` to the loop and wait for their results."""
        self._chunks_done.clear()
        self._results = {}
        self._queue = queue = ChunkQueue(chunks)
        if not self._is_closed:
            self._chunks_done.wait()
        if self._is_closed:
            raise RuntimeError("the run ended before its evaluation")
        if queue.is_given_up:
            raise _GivenUpError
        return [self._results[index] for index in range(len(chunks))]
