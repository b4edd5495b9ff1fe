"""Trackers: further places for a run's metrics, scores and pictures."""

from pydantic import Field

from common.config.base import Section


class WandbSection(Section):
    """Weights & Biases, from the extra `wandb`. Account and mode come from its environment variables (WANDB_…)."""

    project: str = Field(default="va-pi", min_length=1)
    """The project."""
    entity: str | None = None
    """The user or team; null uses the account's own."""


class MlflowSection(Section):
    """MLflow, from the extra `mlflow`. Credentials come from its environment variables (MLFLOW_…)."""

    uri: str = Field(min_length=1)
    """The tracking server, such as http://mlflow.example:5000, or sqlite:///FILE."""
    experiment: str = Field(default="va-pi", min_length=1)
    """The experiment; created if it does not exist."""


class TrackingSection(Section):
    """Where metrics, scores and pictures also go, besides the run folder: trackers get the lines of metrics.jsonl
    and evaluations.jsonl. If a tracker fails, events.jsonl names it and the run goes on."""

    tensorboard: bool = False
    """Write event files to tensorboard/ in the run folder, with the extra `tensorboard`."""
    wandb: WandbSection | None = None
    """Log to Weights & Biases."""
    mlflow: MlflowSection | None = None
    """Log to MLflow."""
