"""`evaluate`: a generator's scores, computed in this process."""

import json
from pathlib import Path

from actors.evaluation.picture_files import find_pictures
from actors.evaluation.pictures import free_running_panel, held_out_panels, save_panels
from common.atomic import write_json
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.machine import prepare_device
from common.models.loading import load_policy
from deploy.scoring.scorer import Evaluation, Scorer, Scores, in_process


def evaluate(
    recipe: Recipe,
    checkpoint: str | None = None,
    pictures: str | None = None,
    out: str | None = None,
    grid: str | None = None,
) -> Scores:
    """Print the scores as JSON, write them to `out` if given, and return them.

    `pictures` is a folder or `.npz` of free-running pictures to score instead of drawing new ones. A PNG of
    source, reconstruction, teacher-forced and free-running samples goes to `grid`, or beside `out`.
    """
    problem = recipe.evaluation.problem(recipe.policy.conditioning)
    if problem:
        raise RecipeError(problem)
    files = find_pictures(Path(pictures)) if pictures else None
    device = prepare_device(recipe.compute)
    run_chunks = in_process(recipe, load_policy(recipe, device, checkpoint), device)
    scorer = Scorer(recipe, device)
    if files is not None:
        result = scorer.evaluate_files(run_chunks, files)
    else:
        (result,) = scorer.evaluate(run_chunks, temperature=recipe.sampling.temperature, num_seeds=1)
    print(json.dumps(result.scores, indent=2))
    if out:
        write_json(Path(out), result.scores)
    path = Path(grid) if grid else Path(out).with_suffix(".png") if out else None
    if path is not None:
        _save_grid(path, result)
    return result.scores


def _save_grid(path: Path, result: Evaluation) -> None:
    assert result.held_out is not None, "the scorer asks for pictures"
    rows = len(result.held_out.source_NHWC)
    save_panels(path, [*held_out_panels(result.held_out), free_running_panel(result.pictures_NHWC, rows)])
    print(f"wrote {path}")
