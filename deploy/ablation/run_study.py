"""Runs the unfinished cells of a study, each in its own process."""

import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from common.errors import UserError
from deploy.ablation.results import StudyFolder
from deploy.ablation.run_cell import run_cell
from deploy.ablation.study import Study

log = logging.getLogger("vapi.ablation")


def run_study(study: Study, folder: StudyFolder, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Score the base, and train and score every unfinished cell, `jobs` at once; returns one line per failure.

    Each finished cell is written at once, so that an interrupted study resumes where it stopped.
    """
    jobs = 1 if study.section.runner == "train" else jobs
    cells = [*study.base, *study.cells]
    unfinished = [cell for cell in cells if folder.result(cell) is None]
    if unfinished:
        say(f"{len(cells) - len(unfinished)} of {len(cells)} cells are done")
    failures, started = [], time.monotonic()
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        futures = {pool.submit(run_cell, cell, folder): cell.name for cell in unfinished}
        for number, future in enumerate(as_completed(futures), start=1):
            failure = _failure(futures[future], future)
            failures += [failure] if failure else []
            say(f"{number}/{len(unfinished)}  {time.monotonic() - started:5.0f} s  {failure or futures[future]}")
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def _failure(name: str, future: Future[None]) -> str | None:
    """Why a run failed. The others go on: one diverging variant says nothing about the others."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return f"{name}: a process died, of memory perhaps; lower --jobs"
    if not isinstance(error, UserError | OSError):
        log.error("%s failed", name, exc_info=error)
    return f"{name}: {type(error).__name__}: {error}"
