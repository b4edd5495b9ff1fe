"""`pretrain`: trains a small tokenizer, generator and what scores them from scratch on the recipe's own images.

In one process, resumable, stage after stage. Each stage writes its weights to the recipe's path and is skipped if
they already exist. So retraining a lost tokenizer does not retrain the generator unless you ask for it, although a
generator fits only the tokenizer it was trained with.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.preference import prompt_of
from actors.sources.build import build_source
from actors.sources.emoji import Emoji
from actors.sources.image_folder import ImageFolder
from common.config.recipe import Recipe
from common.config.service import PretrainStage
from common.errors import BrokenImageError, DataError
from common.machine import prepare_device
from common.models.clip.preprocess import prepared
from common.models.clip.untrained import clip_tokenizer
from common.models.families import TokenizerModule, build_perceptual_metric, build_tokenizer
from common.models.weights_files import load_weights, save_weights
from common.protocols import Condition
from common.sample_order import SampleOrder
from common.seeding import derive_seed, generator
from deploy.pretraining.loss_log import LossLog
from deploy.pretraining.preflight import Stage, require_ready, stages_of, state_file, state_folder, untrained_model
from deploy.pretraining.shown import PAGE, save_reconstructions, save_samples, write_page
from deploy.runs.progress_line import ProgressLine, progress_stream, stage_text
from deploy.runs.run_lock import lock_output
from learner.pretraining.loop import LossFunction, StageProgress, decay_begins, train_stage
from learner.pretraining.losses import (
    classifier_loss,
    clip_loss,
    next_token_loss,
    revive_dead_codes,
    shifted,
    tokenizer_loss,
)

REVIVE_EVERY = 50


def pretrain(recipe: Recipe, *, overwrite: bool, say: Callable[[str], None]) -> None:
    """Run the stages of `recipe.pretrain`; `overwrite` retrains those whose weights exist.

    Raises UserError, with a line a problem, before the first stage where something that it needs is missing; and
    where another process trains into one of the folders.
    """
    stages = stages_of(recipe)
    device = prepare_device(recipe.compute)
    require_ready(recipe, stages, overwrite)
    folders = {state_folder(recipe): "run.dir"}
    for stage in stages:
        if overwrite or not stage.target.exists():
            folders.setdefault(stage.target.parent, stage.key)
    with ExitStack() as held:
        for folder, setting in folders.items():
            held.enter_context(lock_output(folder, "pretrain", setting))
        Pretraining(recipe, stages, device, overwrite, say).run()


class Pretraining:
    def __init__(
        self,
        recipe: Recipe,
        stages: Sequence[Stage],
        device: torch.device,
        overwrite: bool,
        say: Callable[[str], None],
    ):
        self._recipe, self._stages, self._device = recipe, stages, device
        self._overwrite, self._say = overwrite, say
        self._folder = state_folder(recipe)
        self._source = build_source(recipe, "train")
        self._order = SampleOrder(recipe.seed, len(self._source))

    def run(self) -> None:
        start = time.monotonic()
        self._tell_of_unseen_classes()
        losses = {
            "clip": self._clip_loss,
            "classifier": self._classifier_loss,
            "tokenizer": self._tokenizer_loss,
            "policy": self._policy_loss,
        }
        has_run = [self._run_stage(stage, losses[stage.name]) for stage in self._stages]
        if any(has_run):
            page = self._folder / PAGE
            self._say(f"done in {time.monotonic() - start:.0f} s; curves and pictures: {page}")

    def _tell_of_unseen_classes(self) -> None:
        if self._recipe.policy.conditioning == "text" or not isinstance(self._source, Emoji | ImageFolder):
            return
        known, seen = self._recipe.policy.num_classes, self._source.num_classes
        if seen < known:
            self._say(
                f"note: the source has {seen} classes of policy.num_classes={known}; the others stay untrained"
            )

    def _classifier_loss(self, stage: PretrainStage, model: Any) -> LossFunction:
        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, condition = self._batch(stage, step)
            return classifier_loss(model, pixels_BCHW, condition["label"])

        return loss

    def _clip_loss(self, stage: PretrainStage, model: Any) -> LossFunction:
        tokenizer = clip_tokenizer(self._recipe)

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            images = self._read(step, stage.batch_size)
            pixels_BCHW = self._moved(images.tensors(self._device)[0], stage, step)
            prompts = [prompt_of(self._recipe, text) for text in images.texts]
            prepared_BCHW = prepared((pixels_BCHW + 1) / 2, model.shape.image_size)
            return clip_loss(model, prepared_BCHW, tokenizer(prompts).to(self._device))

        return loss

    def _tokenizer_loss(self, stage: PretrainStage, model: Any) -> LossFunction:
        perceptual = build_perceptual_metric(self._recipe.perceptual).to(self._device)

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, _ = self._batch(stage, step)
            if step % REVIVE_EVERY == 0 and step < stage.num_steps // 2:
                revive_dead_codes(model, pixels_BCHW, self._generator("revive", step))
            return tokenizer_loss(model, perceptual, pixels_BCHW)

        return loss

    def _policy_loss(self, stage: PretrainStage, model: Any) -> LossFunction:
        tokenizer = self._tokenizer

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, condition = self._batch(stage, step)
            tokens_BT = tokenizer.encode(pixels_BCHW)
            return next_token_loss(
                model, tokens_BT, condition, stage.condition_drop, self._generator("condition drop", step)
            )

        return loss

    @cached_property
    def _tokenizer(self) -> TokenizerModule:
        """As its file has it: trained before, or by the stage before."""
        tokenizer = build_tokenizer(self._recipe.tokenizer, image_size=self._recipe.image_size)
        load_weights(tokenizer, self._recipe.tokenizer.checkpoint, what="tokenizer")
        return tokenizer.to(self._device).eval().requires_grad_(False)

    def _run_stage(self, stage: Stage, loss_of: Callable[[PretrainStage, Any], LossFunction]) -> bool:
        """Whether it had anything to do."""
        name, section, target = stage.name, stage.section, stage.target
        if target.exists() and not self._overwrite:
            self._say(f"{name}: {target} is there; kept (--overwrite trains it anew)")
            return False
        torch.manual_seed(derive_seed(self._recipe.seed, "initial weights"))  # whatever ran before in this process
        model = untrained_model(self._recipe, stage)
        size = sum(parameter.numel() for parameter in model.parameters())
        self._say(f"{name}: {size:,} parameters, {section.num_steps} steps of {section.batch_size} images")
        if section.initial_weights:
            load_weights(model, section.initial_weights, what=f"pretrain.{name}.initial_weights")
        self._train(stage, model.to(self._device), loss_of(section, model))
        save_weights(model.state_dict(), target, dtype=torch.float16)
        state_file(self._recipe, stage).unlink(missing_ok=True)
        self._show(stage, model)
        self._say(f"{name}: wrote {target} ({target.stat().st_size / 1e6:.2f} MB)")
        return True

    def _train(self, stage: Stage, model: nn.Module, loss: LossFunction) -> None:
        num_done = count(1)  # steps of this call; a resumed stage has done more
        stream = progress_stream(self._recipe.log)
        with closing(ProgressLine(stream)) as line, LossLog(self._folder, stage.name) as log:

            def on_step(progress: StageProgress) -> None:
                log.record(progress)
                line.show(stage_text(stage.name, progress, next(num_done), line.seconds))

            train_stage(
                model,
                loss,
                stage.section,
                state_path=state_file(self._recipe, stage),
                save_every=stage.save_every,
                on_step=on_step,
            )

    def _show(self, stage: Stage, model: Any) -> None:
        if stage.name == "tokenizer":
            save_reconstructions(self._folder, self._recipe, self._tokenizer, self._device)
        elif stage.name == "policy":
            save_samples(self._folder, self._recipe, model, self._tokenizer, self._device)
        write_page(self._folder, self._recipe.run.name, [each.name for each in self._stages])

    def _batch(self, stage: PretrainStage, step: int) -> tuple[Tensor, Condition]:
        pixels_BCHW, condition = self._read(step, stage.batch_size).tensors(self._device)
        return self._moved(pixels_BCHW, stage, step), condition

    def _moved(self, pixels_BCHW: Tensor, stage: PretrainStage, step: int) -> Tensor:
        last = decay_begins(stage.num_steps) if stage.schedule == "wsd" else stage.num_steps
        if not stage.shift or step >= last:
            return pixels_BCHW
        return shifted(pixels_BCHW, stage.shift, self._generator("shift", step))

    def _read(self, step: int, size: int) -> ImageBatch:
        """The step's images; where none of them can be read, the first ones after them that can."""
        broken: list[BrokenImageError] = []
        for start in range(step * size, step * size + len(self._source) + size, size):
            indices = [self._order.image_index(index) for index in range(start, start + size)]
            batch = batch_of(start_reading(self._source, indices))
            if isinstance(batch, ImageBatch):
                return batch
            broken += batch.values()
        raise DataError(f"none of the images can be read; the first: {broken[0]}")

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return generator(self._recipe.seed, purpose, step)
