"""MLflow, through its client: unlike the fluent interface, it is not bound to a thread."""

import json
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException

from common.config.keys import flat
from common.config.recipe import Recipe
from common.errors import RecipeError, first_line
from deploy.runs.tracking.tracker import kept_identity, scalars

MAX_PARAMS = 100  # most that MLflow accepts at once


class MlflowTracker:
    def __init__(self, recipe: Recipe, folder: Path):
        section = recipe.tracking.mlflow
        assert section is not None
        try:
            self._client = MlflowClient(section.uri)
            self._run = kept_identity(folder, "mlflow", lambda: self._start(recipe, section.experiment))
            self._client.update_run(self._run, status="RUNNING")
        except MlflowException as error:
            raise RecipeError(
                f"tracking.mlflow.uri is {section.uri}, where MLflow cannot log ({first_line(error)}): name a "
                "server that answers, or take tracking.mlflow out of the recipe"
            ) from None

    def metrics(self, line: dict[str, Any]) -> None:
        self._log(line, "train")

    def evaluation(self, line: dict[str, Any]) -> None:
        self._log(line, "evaluation")

    def picture(self, step: int, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), "samples")

    def rewind(self, step: int) -> None:
        """Nothing to do: repeated steps are logged beside the earlier ones."""

    def close(self, status: str) -> None:
        endings = {"succeeded": RunStatus.FINISHED, "stopped": RunStatus.KILLED}
        self._client.set_terminated(self._run, RunStatus.to_string(endings.get(status, RunStatus.FAILED)))

    def _start(self, recipe: Recipe, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(identity, run_name=recipe.run.name).info.run_id
        # MLflow's names allow no brackets or braces, so sections are flattened
        params = [Param(key, json.dumps(value)) for key, value in flat(recipe.model_dump(mode="json"))]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run, params=params[start : start + MAX_PARAMS])
        return run

    def _log(self, line: dict[str, Any], prefix: str) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, line["step"]) for name, value in scalars(line, prefix).items()]
        self._client.log_batch(self._run, metrics=metrics)
