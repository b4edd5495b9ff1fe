"""Which chunks of an evaluation are waiting, running, with judges and done. Pure bookkeeping.

An actor runs one at a time.
"""

from collections.abc import Sequence

from actors.evaluation.chunks import EvaluationChunk


class ChunkQueue:
    def __init__(self, chunks: Sequence[EvaluationChunk]):
        self._chunks = chunks
        self._waiting = list(range(len(chunks)))
        self._running: dict[str, int] = {}
        self._judged: set[int] = set()
        self.is_given_up = False

    @property
    def is_done(self) -> bool:
        return not (self._waiting or self._running or self._judged)

    def take(self, actor: str) -> tuple[int, EvaluationChunk] | None:
        """Index and chunk for `actor`; None if it already has one or none is waiting."""
        if actor in self._running or not self._waiting:
            return None
        index = self._running[actor] = self._waiting.pop(0)
        return index, self._chunks[index]

    def pass_on(self, index: int) -> None:
        """Its actor is free for another; judges complete it."""
        self.finish(index)
        self._judged.add(index)

    def finish(self, index: int) -> None:
        self._running = {actor: running for actor, running in self._running.items() if running != index}
        self._judged.discard(index)

    def give_back(self, actor: str) -> None:
        """Put the chunk that `actor` had, and did not do, at the front of the queue."""
        index = self._running.get(actor)
        if index is not None:
            self.redo(index)

    def redo(self, index: int) -> None:
        """The same of a chunk that was lost, whoever had it."""
        self.finish(index)
        if not self.is_given_up:
            self._waiting.insert(0, index)

    def give_up(self) -> None:
        """Nothing more is taken; it is done once nothing runs."""
        self.is_given_up = True
        self._waiting.clear()
