"""`sample`: free-running pictures of a generator, as single PNG files and one grid."""

from pathlib import Path

import numpy as np
from PIL import Image

from actors.evaluation.generate_chunk import GenerateChunk
from actors.evaluation.models import EvaluationModels
from actors.evaluation.pictures import grid, save_panels
from common.config.recipe import Recipe
from common.device import prepare_device
from common.errors import RecipeError
from common.models.loading import load_policy, load_tokenizer

COLUMNS = 10


def sample(recipe: Recipe, checkpoint: str | None, num: int, out: str, seed: int) -> Path:
    """Write pictures 000000.png … of classes in turn, `samples.npz` and `grid.png`; returns the grid's path."""
    if num < 1:
        raise RecipeError(f"--num is {num}: ask for at least 1 picture")
    if seed < 0:
        raise RecipeError(f"--seed is {seed}: seeds are 0 or above")
    device = prepare_device(recipe.compute)
    policy = load_policy(recipe, device, checkpoint)
    models = EvaluationModels(recipe, load_tokenizer(recipe, device), None, device)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = [], []
    size = recipe.sampling.batch_size
    for start in range(0, num, size):
        indices = tuple(range(start, min(start + size, num)))
        batch = GenerateChunk(indices, seed, recipe.sampling.temperature).run(policy, models)
        for index, pixels in zip(indices, batch.pixels_NHWC, strict=True):
            Image.fromarray(pixels).save(folder / f"{index:06d}.png")
        pictures.append(batch.pixels_NHWC)
        labels.append(batch.label_N)
        print(f"{indices[-1] + 1} of {num} pictures")
    pixels_NHWC = np.concatenate(pictures)
    np.savez(folder / "samples.npz", arr_0=pixels_NHWC, labels=np.concatenate(labels))
    path = folder / "grid.png"
    save_panels(path, [(f"temperature {recipe.sampling.temperature:g}", grid(pixels_NHWC[:100], COLUMNS))])
    print(f"wrote {path}")
    return path
