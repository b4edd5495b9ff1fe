"""What `pretrain` needs, looked at before its first stage: an hour's training that cannot be kept helps nobody."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from actors.sources.build import build_source, require_readable
from common.config.recipe import Recipe
from common.config.service import PretrainStage
from common.errors import RecipeError, UserError
from common.hub import SCHEME
from common.models.clip.untrained import untrained_clip
from common.models.families import build_perceptual_metric, build_policy, build_tokenizer
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import check_weights, misfit, shapes_of
from common.paths import resolve
from common.protocols import ImageSource

BYTES_PER_PARAMETER = 14  # float16 weights, and float32 weights with two moments in a resumable state


@dataclass(frozen=True)
class Stage:
    """One training of a recipe's `pretrain` section."""

    name: str
    section: PretrainStage
    key: str  # that names its weights file
    checkpoint: str  # the file, as the recipe has it
    what: str  # the section in messages about weights
    save_every: int  # steps between resumable states

    @property
    def target(self) -> Path:
        return resolve(self.checkpoint)


def stages_of(recipe: Recipe) -> list[Stage]:
    """In the order in which they run. RecipeError where the recipe has no `pretrain` section."""
    section = recipe.pretrain
    if section is None:
        raise RecipeError(
            "this recipe has no `pretrain` section: see deploy/recipes/mnist.yaml for one, or write a recipe with "
            "`python -m deploy init`"
        )
    every = section.checkpoint_every
    stages = [
        Stage(
            "tokenizer", section.tokenizer, "tokenizer.checkpoint", recipe.tokenizer.checkpoint, "tokenizer", every
        ),
        Stage("policy", section.policy, "policy.checkpoint", recipe.policy.checkpoint, "policy", every),
    ]
    if section.classifier is not None:
        key = "evaluation.classifier"
        stages.insert(0, Stage("classifier", section.classifier, key, recipe.evaluation.classifier, key, every))
    if section.clip is not None:
        key = "reward_models.clip"
        stages.insert(0, Stage("clip", section.clip, key, recipe.reward_models.clip, key, every))
    return stages


def require_ready(recipe: Recipe, stages: Sequence[Stage], overwrite: bool) -> None:
    """UserError with a line a problem, where there is one. Writes nothing that stays but empty folders."""
    outputs = list(_output_problems(recipe, stages))
    if outputs:
        raise UserError("\n".join(outputs))
    to_run = [stage for stage in stages if overwrite or not stage.target.exists()]
    problems = [*_model_problems(recipe, stages, to_run), *_data_problems(recipe, to_run)]
    if problems:
        raise UserError("\n".join(problems))


def untrained_model(recipe: Recipe, stage: Stage) -> nn.Module:
    """The model of a stage, with random weights of torch's default generator."""
    if stage.name == "classifier":
        return ImageClassifier(recipe.policy.num_classes)
    if stage.name == "clip":
        return untrained_clip(recipe)
    if stage.name == "tokenizer":
        return build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
    return build_policy(
        recipe.policy,
        codebook_size=recipe.tokenizer.codebook_size,
        grid_size=recipe.grid_size,
        dropout=stage.section.dropout,
    )


def state_folder(recipe: Recipe) -> Path:
    """Where `pretrain` keeps its states, numbers and pictures."""
    return resolve(recipe.run.dir) / f"pretrain-{recipe.run.name}"


def state_file(recipe: Recipe, stage: Stage) -> Path:
    """From which an interrupted stage goes on."""
    return state_folder(recipe) / f"{stage.name}.pt"


def _output_problems(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[str]:
    seen: dict[Path, str] = {}
    for stage in stages:
        key, given = stage.key, stage.checkpoint
        if not given:
            yield f"{key} is empty, and pretrain.{stage.name} writes its weights there: name a .safetensors file"
        elif given.startswith(SCHEME):
            yield f"{key} is {given}, which pretrain.{stage.name} cannot write: name a .safetensors file"
        elif stage.target.is_dir():
            yield f"{key} is {stage.target}, a folder: name a .safetensors file for pretrain.{stage.name} to write"
        elif stage.target.suffix != ".safetensors":
            yield f"{key} is {given}, and pretrain writes safetensors: name it .safetensors"
        elif stage.target in seen:
            yield f"{key} and {seen[stage.target]} are both {given}: give each a file of its own"
        seen.setdefault(stage.target, key)


def _model_problems(recipe: Recipe, stages: Sequence[Stage], to_run: Sequence[Stage]) -> Iterator[str]:
    """Weights that are there must fit; those to come need room."""
    num_parameters = 0
    for stage in stages:
        try:
            with torch.device("meta"):
                model = untrained_model(recipe, stage)
        except UserError as error:
            yield str(error)
            continue
        try:
            if stage not in to_run:
                check_weights(model, stage.target, what=stage.what)
            elif stage.section.initial_weights:
                what = f"pretrain.{stage.name}.initial_weights"
                check_weights(model, stage.section.initial_weights, what=what)
        except UserError as error:
            yield str(error)
        if stage in to_run:
            num_parameters += sum(parameter.numel() for parameter in model.parameters())
            yield from _state_problems(model, state_file(recipe, stage))
    folders = {stage.target.parent: stage.key for stage in to_run}
    folders |= {state_folder(recipe): "run.dir"} if to_run else {}
    for folder, key in folders.items():
        yield from _folder_problems(folder, key, BYTES_PER_PARAMETER * num_parameters)


def _state_problems(model: nn.Module, path: Path) -> Iterator[str]:
    """What an interrupted stage left must be of the same model."""
    if not path.exists():
        return
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        found = misfit(model, shapes_of(state["model"]))
    except Exception as error:  # a damaged pickle can raise anything
        yield f"{path}, which an interrupted pretraining left, cannot be read ({type(error).__name__}): delete it"
    else:
        if found:
            yield f"{path}, which an interrupted pretraining left, is of another model ({found}): delete it"


def _folder_problems(folder: Path, key: str, num_bytes: int) -> Iterator[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield f"nothing can be written to {folder} ({reason}): point {key} at a folder that can be written to"
        return
    if free < num_bytes:
        yield (
            f"{folder} has {free / 1e6:,.0f} MB free, and the models of this recipe need "
            f"{num_bytes / 1e6:,.0f} MB there: make room, or point {key} elsewhere"
        )


def _data_problems(recipe: Recipe, to_run: Sequence[Stage]) -> Iterator[str]:
    if not to_run:
        return
    try:
        source = build_source(recipe, "train")
        image = require_readable(source)
    except UserError as error:
        yield str(error)
    else:
        for stage in to_run:
            yield from _too_few(source, stage)
        if any(stage.name == "clip" for stage in to_run) and not image.text:
            yield "the pictures have no captions or class names, which a CLIP learns from: leave pretrain.clip out"
    if any(stage.name == "classifier" for stage in to_run):
        yield from _class_problems(recipe)
    if any(stage.name == "tokenizer" for stage in to_run):
        yield from _metric_problems(recipe)


def _too_few(source: ImageSource, stage: Stage) -> Iterator[str]:
    if len(source) < stage.section.batch_size:
        yield (
            f"the source has {len(source)} training images and pretrain.{stage.name}.batch_size is "
            f"{stage.section.batch_size}: lower it to at most {len(source)}, or add pictures"
        )


def _class_problems(recipe: Recipe) -> Iterator[str]:
    if recipe.policy.conditioning == "text":
        yield "policy.conditioning is text, and captions have no classes: leave pretrain.classifier out"
    elif recipe.policy.num_classes < 2:
        yield "policy.num_classes is 1, and a classifier needs two classes: leave pretrain.classifier out"


def _metric_problems(recipe: Recipe) -> Iterator[str]:
    """The tokenizer's loss has the perceptual metric: its weights may be missing, and it has a smallest size."""
    side = recipe.image_size
    try:
        build_perceptual_metric(recipe.perceptual).reference_features(torch.zeros(1, 3, side, side))
    except UserError as error:
        yield str(error)
