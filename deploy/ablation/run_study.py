"""Runs what is unfinished of a study: the base and every cell, each in a process of its own."""

import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from deploy.ablation.results import StudyFolder
from deploy.ablation.run_cell import run_cell, score_base
from deploy.ablation.study import BASE, Study

log = logging.getLogger("vapi.ablation")

LEAST_NOISE_SEEDS = 3


def run_study(study: Study, folder: StudyFolder, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Train and score every unfinished cell, `jobs` at once; returns what failed, a line each.

    A finished cell is on disk at once, so that an interrupted study goes on where it was.
    """
    jobs = 1 if study.section.runner == "train" else jobs
    unfinished = [cell for cell in study.cells if folder.cell(cell) is None]
    base, num_seeds = folder.base(study), max(len(study.section.seeds), LEAST_NOISE_SEEDS)
    needs_base = base is None or len(base.scores) < num_seeds  # seeds may have been added
    total = len(unfinished) + needs_base
    if total:
        say(f"{len(study.cells) - len(unfinished)} of {len(study.cells)} cells are done, {total} runs to do")
    failures, started = [], time.monotonic()
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        futures: dict[Future[None], str] = {}
        if needs_base:
            futures[pool.submit(score_base, study.recipe, num_seeds, folder)] = BASE
        for cell in unfinished:
            futures[pool.submit(run_cell, cell, study.recipe, study.section.runner, folder)] = cell.name
        for number, future in enumerate(as_completed(futures), start=1):
            failure = _failure(futures[future], future)
            failures += [failure] if failure else []
            say(f"{number}/{total}  {time.monotonic() - started:5.0f} s  {failure or futures[future]}")
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def _failure(name: str, future: Future[None]) -> str | None:
    """Why a run failed. The others go on: a variant that diverges says nothing of its neighbours."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return f"{name}: a process died, of memory perhaps; lower --jobs"
    log.error("%s failed", name, exc_info=error)
    return f"{name}: {type(error).__name__}: {error}"
