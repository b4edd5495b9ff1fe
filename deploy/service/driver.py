"""`train`: composes a run from its parts, in order, and closes them in reverse."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import LearnerLostError
from common.facts import Ended, LearnerLost, Started
from common.metrics.exporter import Exporter, Metrics
from common.request_facts import StopAskedFor
from deploy.cluster.stop_signals import StopAsked
from deploy.cluster.worker_lines import worker_lines_to
from deploy.reporting.live import LiveReport
from deploy.runs.progress_line import StepLine, progress_stream, service_text
from deploy.runs.prometheus import Prometheus
from deploy.runs.recorder import LogLines, Recorder
from deploy.runs.run_folder import RunFolder, open_run_folder
from deploy.runs.run_log import kept_log
from deploy.runs.status import Status
from deploy.runs.tracking.following import tracking
from deploy.service.check import require_sound
from deploy.service.same_run import require_same_base, require_same_run
from deploy.service.service import ActorCounts, Parts, Service, Surroundings
from learner.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint

log = logging.getLogger("vapi.driver")

MAX_ATTEMPTS = 3  # to get to the next checkpoint, with learner ranks that are all lost


@dataclass(frozen=True)
class Outcome:
    folder: RunFolder
    summary: dict[str, Any]
    stop_signal: int | None


def train(recipe: Recipe, parts: Parts | None = None) -> Outcome:
    """Run the service to its end. Raises UserError before Ray starts where the recipe cannot work.

    A run's folder is as it was until it is held, the cluster has answered, and the run's name is free there.
    Raises StopAsked where a signal comes before that.
    """
    parts = parts or Parts()
    with ExitStack() as cleanup:
        cleanup.enter_context(parts.stop.installed())
        parts.session.require_cluster()
        require_sound(recipe)
        metrics = Metrics()
        exporter = Exporter(metrics, recipe.metrics)
        cleanup.callback(exporter.close)
        folder, path = cleanup.enter_context(open_run_folder(recipe))
        checkpoint = read_checkpoint(path) if path else None
        if checkpoint is not None:
            require_same_run(recipe, checkpoint.state)
            require_same_base(recipe, checkpoint)
        recipe = with_changes(recipe, {"run.name": folder.path.name})
        run = _Run(recipe, folder, exporter, Prometheus(recipe, metrics, exporter), parts, cleanup)
        return Outcome(folder, *run.until_done(checkpoint))


class _Run:
    """Its recorder hears of all that happens; each service in it lives until every learner rank is lost."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        exporter: Exporter,
        prometheus: Prometheus,
        parts: Parts,
        cleanup: ExitStack,
    ):
        """What is opened for the whole run is closed with `cleanup`."""
        line = StepLine(recipe.learner.num_steps, service_text, progress_stream(recipe.log))
        status = Status(recipe, folder.checkpoints)
        self._recorder = Recorder((LogLines(line.close), folder, prometheus, line, status, *parts.sinks))
        self._tell = self._recorder.tell
        self._surroundings = Surroundings(recipe, folder, parts, self._tell, exporter, prometheus, status, line)
        self._cleanup = cleanup
        self._has_begun = False

    def until_done(self, checkpoint: Checkpoint | None) -> tuple[dict[str, Any], int | None]:
        """Where every learner rank was lost, begin again from the newest checkpoint, or from the start.

        What the run came to, and the signal that ended it early.
        """
        folder = self._surroundings.folder
        attempts, goes_on = 0, checkpoint is not None or folder.has_history
        counts = ActorCounts.of(self._surroundings.recipe)
        while True:
            service = Service(self._surroundings, checkpoint, counts)
            try:
                return service.serve(lambda: self._begin(checkpoint), goes_on)  # noqa: B023  called within
            except LearnerLostError as error:
                if service.stop_signal is not None:
                    summary = service.summary("stopped")
                    self._tell(Ended("stopped", summary))
                    return summary, service.stop_signal
                newest = newest_checkpoint(folder.checkpoints)
                attempts = attempts + 1 if newest == (checkpoint.path if checkpoint else None) else 1
                if attempts >= MAX_ATTEMPTS:
                    self._fail(error)
                    raise
                checkpoint, goes_on = (read_checkpoint(newest) if newest else None), True
                counts = service.actor_counts
                step = checkpoint.state.step if checkpoint else 0
                self._tell(LearnerLost(str(error), str(newest or ""), step))
            except StopAsked as asked:
                if not self._has_begun:
                    raise
                self._tell(StopAskedFor(asked.by))
                summary = service.summary("stopped")
                self._tell(Ended("stopped", summary))
                return summary, asked.number
            except Exception as error:
                self._fail(error)
                raise

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        """From here on the folder is this run's: what was asked, and that it has started."""
        if self._has_begun:
            return
        run = self._surroundings
        recipe, folder, exporter = run.recipe, run.folder, run.exporter
        folder.write_recipe(recipe)
        kept = self._cleanup.enter_context(kept_log(folder.path, recipe.log.format))
        self._cleanup.enter_context(worker_lines_to(kept.worker_line))
        exporter.show(folder.path.name, LiveReport(folder.path))
        self._cleanup.enter_context(tracking(recipe, folder.path, self._recorder))
        self._has_begun = True
        path, step = (str(checkpoint.path), checkpoint.state.step) if checkpoint else ("", 0)
        self._tell(Started(f"{exporter.url}/metrics", path, step))
        log.info("run folder %s, report %s/, metrics %s/metrics", folder.path, exporter.url, exporter.url)

    def _fail(self, error: Exception) -> None:
        """A run that has not begun leaves its folder as it was."""
        if self._has_begun:
            reason = f"{type(error).__name__}: {error}"
            self._tell(Ended("failed", {"status": "failed", "error": reason}))
