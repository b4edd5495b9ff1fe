"""What each tracker keeps, read back from where it keeps it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from deploy.runs.tracking.tracker import Tracker, open_trackers

LINE: dict[str, Any] = {
    "step": 3,
    "loss": 0.5,
    "grad_norm": None,
    "is_bad": False,
    "stage_seconds": {"fetch": 0.25},
}


def tracker(recipe: Recipe, name: str, value: Any, folder: Path) -> Tracker:
    folder.mkdir(exist_ok=True)
    (made,) = open_trackers(with_changes(recipe, {f"tracking.{name}": value}), folder).values()
    return made


def tell(made: Tracker, tmp_path: Path) -> None:
    """A step, an evaluation, and a picture."""
    picture = tmp_path / "step-000003.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(picture)
    made.metrics(LINE)
    made.evaluation({"step": 3, "fd": 8.5})
    made.picture(3, picture)


def test_tensorboard_keeps_numbers_and_pictures_and_hides_what_a_resumed_run_does_again(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    made = tracker(tiny_recipe, "tensorboard", True, tmp_path / "run")
    tell(made, tmp_path)
    made.metrics(LINE | {"step": 4, "loss": 0.75})
    made.rewind(3)
    made.metrics(LINE | {"step": 4, "loss": 0.25})
    made.close("succeeded")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "evaluation/fd", "train/is_bad", "train/loss", "train/stage_seconds/fetch"
    ]  # fmt: skip
    assert [(each.step, each.value) for each in events.Scalars("train/loss")] == [(3, 0.5), (4, 0.25)]
    assert [(each.step, each.value) for each in events.Scalars("evaluation/fd")] == [(3, 8.5)]
    (picture,) = events.Images("samples/free_running")
    assert (picture.step, picture.width, picture.height) == (3, 6, 4)


def test_mlflow_keeps_recipe_numbers_pictures_and_end_and_a_resumed_run_goes_on(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    section = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "try"}
    client = mlflow.MlflowClient(section["uri"])
    client.create_experiment("try", artifact_location=(tmp_path / "artifacts").as_uri())
    made = tracker(tiny_recipe, "mlflow", section, tmp_path / "run")
    tell(made, tmp_path)
    made.close("stopped")
    again = tracker(tiny_recipe, "mlflow", section, tmp_path / "run")
    again.metrics(LINE | {"step": 4, "loss": 0.25})
    again.close("succeeded")
    (run,) = client.search_runs([client.get_experiment_by_name("try").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["learner.num_steps"] == "2"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in history] == [(3, 0.5), (4, 0.25)]
    assert run.data.metrics["evaluation/fd"] == 8.5
    assert [each.path for each in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step-000003.png"]


def test_an_mlflow_that_cannot_be_used_names_its_key(tiny_recipe: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    with pytest.raises(RecipeError, match=r"tracking\.mlflow\.uri is gopher://nowhere, where MLflow cannot log"):
        tracker(tiny_recipe, "mlflow", {"uri": "gopher://nowhere"}, tmp_path / "run")


@pytest.mark.slow
def test_wandb_keeps_a_run_offline_under_one_name(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    made = tracker(tiny_recipe, "wandb", {"project": "try"}, folder)
    tell(made, tmp_path)
    made.close("succeeded")
    wandb.teardown()  # as at the end of the process: its service writes the file out
    identity = json.loads((folder / "tracking.json").read_text())["wandb"]
    (log,) = folder.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    written = log.read_bytes()
    for name in (b"train/loss", b"train/stage_seconds/fetch", b"evaluation/fd", b"samples/free_running"):
        assert name in written
