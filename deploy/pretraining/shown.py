"""What `pretrain` leaves to look at, in runs/pretrain-NAME: pictures of its models, and a page with its curves.

Letters: N pictures, T tokens of one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from actors.evaluation.free_running import sample_tokens
from actors.evaluation.pictures import free_running_grid, grid, save_panels
from actors.image_batch import ImageBatch, read_readable, to_uint8
from actors.sources.build import build_source
from common.atomic import replacing
from common.config.recipe import Recipe
from common.errors import DataError
from common.models.families import PolicyModule, TokenizerModule
from deploy.pretraining.loss_log import charts_of
from deploy.reporting.pictures import picture
from deploy.reporting.template import fill_in

RECONSTRUCTIONS, SAMPLES, PAGE = "reconstructions.png", "samples.png", "pretrain.html"
NUM_RECONSTRUCTIONS, NUM_SAMPLES = 12, 32
COLUMNS = 4

_PICTURES = (
    (RECONSTRUCTIONS, "Pictures of the source beside what the tokenizer makes of them", "Tokenizer"),
    (SAMPLES, "Pictures that the generator draws, of the classes or captions of the source", "Generator"),
)


@torch.no_grad()
def save_reconstructions(folder: Path, recipe: Recipe, tokenizer: TokenizerModule, device: torch.device) -> None:
    """Held-out images and their reconstructions; training images where none are held out."""
    images = _spread_images(recipe, NUM_RECONSTRUCTIONS)
    pixels_NCHW, _ = images.tensors(device)
    decoded_NHWC = to_uint8(tokenizer.decode(tokenizer.encode(pixels_NCHW)))
    panels = [("source", grid(images.pixels_BHWC, COLUMNS)), ("reconstruction", grid(decoded_NHWC, COLUMNS))]
    save_panels(folder / RECONSTRUCTIONS, panels)


@torch.no_grad()
def save_samples(
    folder: Path, recipe: Recipe, policy: PolicyModule, tokenizer: TokenizerModule, device: torch.device
) -> None:
    """Free-running samples under the conditions of images spread over the source, as the recipe samples."""
    _, condition = _spread_images(recipe, NUM_SAMPLES).tensors(device)
    num = len(next(iter(condition.values())))
    tokens_NT = sample_tokens(policy, condition, recipe.sampling, recipe.evaluation.seed, range(num))
    pixels_NHWC = to_uint8(tokenizer.decode(tokens_NT))
    save_panels(folder / SAMPLES, [("free-running samples", free_running_grid(pixels_NHWC, -(-num // 8)))])


def write_page(folder: Path, title: str, stage_names: Sequence[str]) -> Path:
    """pretrain.html, whole in itself: the curves of the stages that have run, and the pictures there are."""
    stages = [(name, charts_of(folder / f"{name}.jsonl")) for name in stage_names]
    shown = [picture(folder / name, alt, caption) for name, alt, caption in _PICTURES]
    text = fill_in(
        Path(__file__).with_name("page") / PAGE,
        title=title,
        stages=[(name, charts) for name, charts in stages if charts],
        pictures=[each for each in shown if each],
    )
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(text)
    return folder / PAGE


def _spread_images(recipe: Recipe, num: int) -> ImageBatch:
    """Up to `num` images at equal distances, so that they are of many classes."""
    try:
        source = build_source(recipe, "held_out")
    except DataError:  # nothing is held out
        source = build_source(recipe, "train")
    places = np.linspace(0, len(source) - 1, min(num, len(source)))
    return read_readable(source, [int(place) for place in places])
