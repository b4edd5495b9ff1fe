"""Weights & Biases. WANDB_MODE=offline writes only to the run folder; `wandb sync` sends it later."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import wandb

from common.config.recipe import Recipe
from common.errors import RecipeError
from deploy.runs.tracking.tracker import kept_identity, scalars


class WandbTracker:
    def __init__(self, recipe: Recipe, folder: Path):
        section = recipe.tracking.wandb
        assert section is not None
        try:
            self._run = wandb.init(
                project=section.project,
                entity=section.entity,
                name=recipe.run.name,
                id=kept_identity(folder, "wandb", lambda: uuid4().hex[:8]),
                resume="allow",
                dir=str(folder),
                config=recipe.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise RecipeError(
                f"tracking.wandb: {' '.join(str(error).split())}; log in with `wandb login`, set "
                "WANDB_MODE=offline, or take tracking.wandb out of the recipe"
            ) from None
        # Scores arrive late, when training has gone on: each is plotted over its own step.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def metrics(self, line: dict[str, Any]) -> None:
        self._run.log(scalars(line, "train") | {"step": line["step"]})

    def evaluation(self, line: dict[str, Any]) -> None:
        self._run.log(scalars(line, "evaluation") | {"step": line["step"]})

    def picture(self, step: int, path: Path) -> None:
        name = "free_running" if path.stem.startswith("step-") else path.stem
        self._run.log({f"samples/{name}": wandb.Image(str(path)), "step": step})

    def rewind(self, step: int) -> None:
        """Nothing to do: repeated steps are logged beside the earlier ones."""

    def close(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=int(status == "failed"))
