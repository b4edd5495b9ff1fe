"""Which chunks of an evaluation are waiting, running and done. Pure bookkeeping; an actor runs one at a time."""

from collections.abc import Sequence

from actors.evaluation.chunks import EvaluationChunk


class ChunkQueue:
    def __init__(self, chunks: Sequence[EvaluationChunk]):
        self._chunks = chunks
        self._waiting = list(range(len(chunks)))
        self._running: dict[str, int] = {}

    @property
    def is_done(self) -> bool:
        return not self._waiting and not self._running

    def take(self, actor: str) -> tuple[int, EvaluationChunk] | None:
        """Index and chunk for `actor`; None if it already has one or none is waiting."""
        if actor in self._running or not self._waiting:
            return None
        index = self._running[actor] = self._waiting.pop(0)
        return index, self._chunks[index]

    def finish(self, index: int) -> None:
        self._running = {actor: running for actor, running in self._running.items() if running != index}

    def give_back(self, actor: str) -> None:
        """Put a lost actor's chunk at the front of the queue."""
        index = self._running.pop(actor, None)
        if index is not None:
            self._waiting.insert(0, index)
