"""`sample`: free-running pictures of a generator, drawn by actors.

A picture depends on the seed, its index and the recipe, never on the number of actors or on interruptions: when
restarted, a call draws only the missing pictures.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from actors.evaluation.conditions import class_labels
from actors.rollout_actor import ActorJob
from actors.sources.build import build_source
from common.config.keys import flat
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import Fact
from common.models.families import caption_format
from common.models.loading import load_policy, load_tokenizer
from common.weights.snapshot import weights_sha256
from deploy.runs.claimed_folder import claim
from deploy.runs.progress_line import ProgressLine, pictures_text, progress_stream
from deploy.runs.recorder import LogLines, Recorder
from deploy.runs.run_folder import RunFolder
from deploy.runs.run_lock import lock_output
from deploy.sampling.actors import on_actors
from deploy.sampling.drawing import RunChunks, draw, missing_chunks
from deploy.sampling.layout import Flat, GenEval, Layout
from deploy.sampling.options import DEFAULT_NUM, SampleOptions
from deploy.sampling.prompts import Prompt, prompts_sha256, read_prompts

SETTINGS = "sampling.json"
# Where weights lie does not matter, what they are does: their digests say it.
_MODEL_PLACES = {"checkpoint", "obtain_from"}

StartRunner = Callable[[Recipe, Callable[[Fact], None], ActorJob], AbstractContextManager[RunChunks]]


def sample(recipe: Recipe, options: SampleOptions, start_runner: StartRunner = on_actors) -> Path:
    """Draw the pictures; returns the path to look at first. Raises UserError, before Ray starts if possible."""
    options.require_fit(recipe.policy.conditioning)
    prompts = _read(options, recipe)
    with lock_output(options.out, "sample", "--out"):
        return _sample(recipe, options, prompts, start_runner)


def _sample(recipe: Recipe, options: SampleOptions, prompts: list[Prompt], start_runner: StartRunner) -> Path:
    num_pictures = len(prompts) * (options.per_prompt or 1) if prompts else options.num or DEFAULT_NUM
    layout = _layout(recipe, options, prompts, num_pictures)
    settings = settings_of(recipe, options, num_pictures, _digests(recipe, options, prompts))
    claim(options.out, settings, file=SETTINGS, argument="--out", things="pictures", command="sample")
    layout.begin()
    num_missing = sum(not layout.picture(index).is_file() for index in range(num_pictures))
    if num_missing:
        captions = _encoded(prompts, options.text_encoder or "", recipe) if prompts else None
        chunks = missing_chunks(recipe, options.seed, num_pictures, layout, captions)
        busy = with_changes(
            recipe, {"actors.count": min(num_drawing(recipe), len(chunks)), "actors.autoscale": None}
        )
        recorder = Recorder((RunFolder(options.out), LogLines()))
        runner = start_runner(busy, recorder.tell, ActorJob(options.checkpoint, only_draws=True))
        with runner as run_chunks, closing(ProgressLine(progress_stream(recipe.log))) as line:
            for num_drawn in accumulate(draw(run_chunks, chunks, layout)):
                line.show(pictures_text(num_drawn, num_missing - num_drawn, num_pictures, line.seconds))
    return layout.finish()


def num_drawing(recipe: Recipe) -> int:
    """Actors that draw: on GPUs as many as the recipe has in all, for nobody learns meanwhile."""
    ranks = recipe.learner.num_ranks if recipe.learner.num_gpus else 0
    return max(1, recipe.actors.count + ranks)


def settings_of(
    recipe: Recipe, options: SampleOptions, num_pictures: int, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that the pictures' bytes depend on, under the recipe's key or the option's name if there is one.

    `digests` are those of weights and prompts.
    """
    return {
        **digests,
        "--seed": options.seed,
        "number of pictures": num_pictures,
        "--layout": options.layout,
        "--per-prompt": options.per_prompt or 1,
        "--text-encoder": options.text_encoder,
        "image_size": recipe.image_size,
        **dict(flat(recipe.policy.model_dump(mode="json", exclude=_MODEL_PLACES), "policy")),
        **dict(flat(recipe.tokenizer.model_dump(mode="json", exclude=_MODEL_PLACES), "tokenizer")),
        **dict(flat(recipe.sampling.model_dump(mode="json"), "sampling")),
        "compute.device": recipe.compute.device,
        "compute.num_threads": recipe.compute.num_threads,
    }


def _read(options: SampleOptions, recipe: Recipe) -> list[Prompt]:
    if options.prompts is None:
        return []
    prompts = read_prompts(options.prompts)
    caption_format(recipe.policy).require_encoder(options.text_encoder or "")
    return prompts


def _encoded(prompts: list[Prompt], text_encoder: str, recipe: Recipe) -> list[np.ndarray]:
    return caption_format(recipe.policy).encode([prompt.text for prompt in prompts], text_encoder)


def _layout(recipe: Recipe, options: SampleOptions, prompts: list[Prompt], num_pictures: int) -> Layout:
    if options.layout == "geneval":
        return GenEval(options.out, prompts, options.per_prompt or 1)
    label_N = None
    if not prompts:
        classes, num_classes = recipe.sampling.classes, recipe.policy.num_classes
        train = partial(build_source, recipe, "train")
        label_N = class_labels(classes, num_classes, options.seed, range(num_pictures), train)
    return Flat(options.out, num_pictures, label_N, f"temperature {recipe.sampling.temperature:g}", prompts)


def _digests(recipe: Recipe, options: SampleOptions, prompts: list[Prompt]) -> dict[str, str]:
    """Of the weights, by the rule of a run's summary.json, and of the prompts. Raises CheckpointError."""
    cpu = torch.device("cpu")
    digests = {
        "weights_sha256": _sha256(load_policy(recipe, cpu, options.checkpoint, may_compile=False)),
        "tokenizer_sha256": _sha256(load_tokenizer(recipe, cpu)),
    }
    return digests | ({"prompts_sha256": prompts_sha256(prompts)} if prompts else {})


def _sha256(model: nn.Module) -> str:
    return weights_sha256(model.state_dict())
