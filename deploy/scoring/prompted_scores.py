"""`evaluate --scores … --pictures FOLDER`: preference scores of pictures by their prompts.

Letters: N pictures, n of a batch, E width of an embedding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.rewards.preference import Judge, RewardModels
from actors.sources.picture import open_picture
from common.config.recipe import Recipe
from common.config.reward_models import Preference
from common.errors import BrokenImageError, DataError
from common.models.clip.clip import LoadedClip
from common.text import shown_name
from deploy.reporting.numbers import fixed
from deploy.reporting.term_names import title
from deploy.scoring.prompted_pictures import PromptedPicture

BLOCKS = 10  # of HPD's benchmark: the spread is that of their means


@dataclass(frozen=True)
class PromptedScores:
    pictures: Sequence[PromptedPicture]
    models: Mapping[Preference, str]
    values: Mapping[Preference, np.ndarray]  # float32 [N]

    def as_tree(self) -> dict[str, Any]:
        """For JSON: means of all pictures, and of each group."""
        groups = {
            group: {name: {"mean": _mean(values), "spread": spread(values)} for name, values in found.items()}
            for group, found in self.groups().items()
        }
        return {
            "num_pictures": len(self.pictures),
            "num_prompts": len({(picture.group, picture.prompt) for picture in self.pictures}),
            "models": dict(self.models),
            "scores": {name: _mean(values) for name, values in self.values.items()},
            **({"groups": groups} if groups else {}),
        }

    def groups(self) -> dict[str, dict[Preference, np.ndarray]]:
        """Float32 [n] by score, of each group; empty without groups."""
        of_pictures = np.array([picture.group for picture in self.pictures])
        names = [group for group in dict.fromkeys(of_pictures.tolist()) if group]
        return {
            group: {name: values[of_pictures == group] for name, values in self.values.items()} for group in names
        }


def score_prompted(
    recipe: Recipe,
    names: Sequence[Preference],
    pictures: Sequence[PromptedPicture],
    device: torch.device,
    on_pictures: Callable[[int], None] = lambda _: None,
) -> PromptedScores:
    """Raises UserError: a model that is missing, a picture that cannot be read.

    `on_pictures` is told how many are done.
    """
    models = RewardModels(recipe, device)
    judges = [models.judge(name) for name in names]
    size = recipe.reward_models.batch_size
    parts: list[dict[Preference, Tensor]] = []
    for start in range(0, len(pictures), size):
        batch = pictures[start : start + size]
        parts.append(_judged(judges, batch, device))
        on_pictures(start + len(batch))
    values = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in names}
    return PromptedScores(pictures, {judge.name: judge.model for judge in judges}, values)


def scores_lines(result: PromptedScores) -> Iterator[str]:
    """A table: each score with its model, and a row a group."""
    tree = result.as_tree()
    yield f"{tree['num_pictures']:,} pictures of {tree['num_prompts']:,} prompts; higher is better"
    groups = result.groups()
    for name, values in result.values.items():
        yield f"{f'{title(name)} ({result.models[name]})':<72}{fixed(_mean(values)):>12}"
        for group, found in groups.items():
            yield f"{f'  {group}':<72}{fixed(_mean(found[name])):>12}  ± {fixed(spread(found[name]))}"
    if groups:
        yield f"±: the standard deviation of the means of {BLOCKS} blocks, as HPD's benchmark has it"


def spread(values: np.ndarray) -> float:
    """Of the means of consecutive blocks; 0 for less than a picture a block."""
    if len(values) < BLOCKS:
        return 0.0
    return float(np.std([block.astype(np.float64).mean() for block in np.array_split(values, BLOCKS)]))


def _mean(values: np.ndarray) -> float:
    return float(values.astype(np.float64).mean())


def _judged(
    judges: Sequence[Judge], batch: Sequence[PromptedPicture], device: torch.device
) -> dict[Preference, Tensor]:
    """Float32 [n] by score; judges of one CLIP share its embeddings."""
    pixels = [_read(picture) for picture in batch]
    prompts = [picture.prompt for picture in batch]
    embedded: dict[LoadedClip, tuple[Tensor, Tensor]] = {}
    for judge in judges:
        if judge.clip not in embedded:
            embedded[judge.clip] = _embedded(judge.clip, pixels, device), judge.clip.embed_texts(prompts)
    return {judge.name: judge.score(*embedded[judge.clip]) for judge in judges}


def _embedded(clip: LoadedClip, pixels: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Float32 [n, E]; neighbours of the same size go together."""
    parts = []
    for _, same in groupby(pixels, key=lambda picture: picture.shape):
        pixels_nCHW = torch.from_numpy(np.stack(list(same))).to(device).permute(0, 3, 1, 2).float() / 255
        parts.append(clip.embed_pictures(pixels_nCHW))
    return torch.cat(parts)


def _read(picture: PromptedPicture) -> np.ndarray:
    """uint8 [H, W, 3]."""
    try:
        return np.array(open_picture(shown_name(picture.path), picture.path))
    except BrokenImageError as error:
        raise DataError(f"{error}: draw it again, or move it away with its prompt") from None
