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
from deploy.ablation.study import BASE, Study
from deploy.runs.run_lock import lock_output

log = logging.getLogger("vapi.ablation")


def run_study(study: Study, folder: StudyFolder, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Score the base, and train and score every unfinished cell, `jobs` at once; returns one line per failure.

    Each finished cell is written at once, so that an interrupted study resumes where it stopped. FolderHeldError
    where another process runs cells into `folder`.
    """
    with lock_output(folder.path, "ablate", "--out"):
        return _run_study(study, folder, jobs, say)


def _run_study(study: Study, folder: StudyFolder, jobs: int, say: Callable[[str], None]) -> list[str]:
    jobs = 1 if study.section.runner == "train" else jobs
    base, cells = ([cell for cell in each if folder.result(cell) is None] for each in (study.base, study.cells))
    num_cells, num_base = len(study.cells), len(study.base)
    finished = num_cells - len(cells)  # as the table counts them: without the scorings of the base
    if base or cells:
        scored = f"the base is scored under {num_base - len(base)} of {num_base} sampling seeds"
        say(f"{finished} of {num_cells} cells are finished; {scored}")
    failures, started = [], time.monotonic()
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        futures = {pool.submit(run_cell, cell, folder): cell for cell in [*base, *cells]}
        for future in as_completed(futures):
            cell = futures[future]
            failure = _failure(cell.name, future)
            failures += [failure] if failure else []
            finished += failure is None and cell.variant != BASE
            say(f"{finished}/{num_cells}  {time.monotonic() - started:5.0f} s  {failure or cell.name}")
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
