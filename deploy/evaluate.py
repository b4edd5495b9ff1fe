"""`evaluate`: the scores of a generator, in this process."""

import json
from pathlib import Path

from common.atomic import write_json
from common.config.recipe import Recipe
from common.device import prepare_device
from common.errors import RecipeError
from common.models.loading import load_policy
from deploy.evaluation import Scorer, in_process


def evaluate(recipe: Recipe, checkpoint: str | None, out: str | None) -> dict[str, float]:
    """Print the scores as JSON, and write them to `out` where given."""
    if not recipe.evaluation.classifier:
        raise RecipeError("evaluation.classifier names no weights file: the scores need a classifier; set it")
    device = prepare_device(recipe.compute)
    policy = load_policy(recipe, device, checkpoint)
    (result,) = Scorer(recipe).evaluate(
        in_process(recipe, policy, device), temperature=recipe.sampling.temperature, num_seeds=1
    )
    print(json.dumps(result.scores, indent=2))
    if out:
        write_json(Path(out), result.scores)
    return result.scores
