"""Where a run's metrics, scores and pictures also go."""

from pydantic import Field

from common.config.base import Section


class WandbSection(Section):
    """Weights & Biases, from the extra `wandb`. Its account and mode come from its own environment (WANDB_…)."""

    project: str = Field(default="va-pi", min_length=1)
    """The project."""
    entity: str | None = None
    """The user or team; null takes the account's own."""


class MlflowSection(Section):
    """MLflow, from the extra `mlflow`. Its credentials come from its own environment (MLFLOW_…)."""

    uri: str = Field(min_length=1)
    """The tracking server, such as http://mlflow.example:5000, or sqlite:///FILE."""
    experiment: str = Field(default="va-pi", min_length=1)
    """The experiment; made where there is none of this name."""


class TrackingSection(Section):
    """Where metrics, scores and pictures also go, beside the run folder: what a tracker gets are the lines of
    metrics.jsonl and evaluations.jsonl. A tracker that fails is named in events.jsonl, and the run goes on."""

    tensorboard: bool = False
    """Write event files to tensorboard/ in the run folder, with the extra `tensorboard`."""
    wandb: WandbSection | None = None
    """Log to Weights & Biases."""
    mlflow: MlflowSection | None = None
    """Log to MLflow."""
