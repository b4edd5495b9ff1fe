"""A run's checkpoints: written beside the training, copied to checkpoint.url; the oldest of both are removed.

One at a time: asked of the learner between two steps, fetched and written on a thread while the next steps run.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import cached_property
from time import perf_counter
from typing import Any

from common.config.recipe import Recipe
from common.errors import first_line
from common.facts import CheckpointNotCopied, CheckpointWritten, Fact
from common.models.adapter_files import AdaptersOf, base_of
from common.ray_calls_group import ProcessLostError, RayCalls, ValueLostError
from deploy.runs.run_folder import RunFolder, remote_checkpoints
from deploy.service.stepper import Counts
from learner.checkpoint import CheckpointState, prune_checkpoints, write_checkpoint
from learner.learner_group import Asked, LearnerGroup


class CheckpointWriter:
    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        tell: Callable[[Fact], None],
        ray: RayCalls,
        learner: LearnerGroup,
        thread: Executor | None = None,
    ):
        """Raises RecipeError where checkpoint.url cannot be used."""
        self._keep = recipe.checkpoint.keep
        self._lora, self._base_checkpoint = recipe.learner.lora, recipe.policy.checkpoint
        self._recipe = recipe.model_dump(mode="json")
        self._folder, self._tell, self._ray, self._learner = folder, tell, ray, learner
        self._remote = remote_checkpoints(recipe, folder.path.name)
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._asked: Asked | None = None
        self._state: CheckpointState | None = None
        self._writing: Future[list[Fact]] | None = None

    @property
    def is_busy(self) -> bool:
        return self._asked is not None or self._writing is not None

    def begin(self, counts: Counts, ledger: dict[str, Any]) -> None:
        """Ask for the learner's state as it is now, between two steps; the next one may begin at once."""
        assert not self.is_busy, "one at a time"
        self._state = CheckpointState(ledger=ledger, recipe=self._recipe, **asdict(counts))
        self._asked = self._learner.training_state()

    def waiting_for(self) -> list[Any]:
        """References that become ready when `advance` has something to do."""
        return [self._asked.told] if self._asked else []

    def advance(self) -> bool:
        """Go on with the checkpoint as far as it goes without waiting; False where its state was lost.

        Raises OSError where it cannot be written, and one of A_RANK_IS_LOST like `LearnerGroup.answer`.
        """
        asked, state = self._asked, self._state
        if asked is not None and state is not None:
            try:
                is_there = self._learner.answer(asked) is not None
            except Exception:
                self._asked = None
                raise
            if is_there:
                self._asked, self._writing = None, self._thread.submit(self._write, asked.value, state)
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            try:
                facts = writing.result()
            except (ProcessLostError, ValueLostError):  # with the node that had it
                return False
            for fact in facts:
                self._tell(fact)
        return True

    def wait(self, seconds: float) -> None:
        """Until the one that is being written is there."""
        if self._writing is not None:
            wait([self._writing], timeout=seconds)

    def close(self) -> None:
        """Wait for the one that is being written, and tell of it no more."""
        self._thread.shutdown(cancel_futures=True)

    @cached_property
    def _adapters(self) -> AdaptersOf | None:
        """What the weights are adapters of. The base is read once, on the thread that writes."""
        return AdaptersOf(self._lora, base_of(self._base_checkpoint)) if self._lora else None

    def _write(self, reference: Any, state: CheckpointState) -> list[Fact]:
        """Write it, complete or not at all; what is to be told. A copy that fails is told of, and no error."""
        start = perf_counter()
        path = write_checkpoint(self._folder.checkpoints, self._ray.get(reference), state, self._adapters)
        prune_checkpoints(self._folder.checkpoints, self._keep)
        facts: list[Fact] = []
        if self._remote is not None:
            try:
                self._remote.upload(path)
                self._remote.prune(self._keep)
            except Exception as error:  # each storage has errors of its own; the run has its checkpoint
                facts.append(CheckpointNotCopied(state.step, first_line(error)))
        return [*facts, CheckpointWritten(state.step, path, perf_counter() - start)]
