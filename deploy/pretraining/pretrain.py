"""`pretrain`: trains a small tokenizer, generator and classifier from scratch on the recipe's own images.

In one process, resumable, stage after stage. Each stage writes its weights to the recipe's path and is skipped if
they already exist. So retraining a lost tokenizer does not retrain the generator unless you ask for it, although a
generator fits only the tokenizer it was trained with.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.config.service import PretrainSection, PretrainStage
from common.errors import BrokenImageError, DataError, RecipeError
from common.machine import prepare_device
from common.models.families import build_perceptual_metric, build_policy, build_tokenizer
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import load_weights, save_weights
from common.paths import resolve
from common.protocols import Condition
from common.sample_order import SampleOrder
from common.seeding import derive_seed, generator
from deploy.runs.progress_line import ProgressLine, progress_stream, stage_text
from learner.pretraining.loop import LossFunction, train_stage
from learner.pretraining.losses import classifier_loss, next_token_loss, revive_dead_codes, tokenizer_loss

REVIVE_EVERY = 50


def pretrain(recipe: Recipe, *, overwrite: bool, say: Callable[[str], None]) -> None:
    """Run the stages of `recipe.pretrain`; `overwrite` retrains those whose weights exist."""
    if recipe.pretrain is None:
        raise RecipeError("this recipe has no `pretrain` section: see deploy/recipes/demo.yaml for one")
    Pretraining(recipe, recipe.pretrain, overwrite, say).run()


class Pretraining:
    def __init__(self, recipe: Recipe, section: PretrainSection, overwrite: bool, say: Callable[[str], None]):
        self._recipe, self._section, self._overwrite, self._say = recipe, section, overwrite, say
        self._device = prepare_device(recipe.compute)
        self._source = build_source(recipe, "train")
        self._order = SampleOrder(recipe.seed, len(self._source))

    def run(self) -> None:
        if self._section.classifier is not None:
            self._train_classifier(self._section.classifier)
        self._train_tokenizer(self._section.tokenizer)
        self._train_policy(self._section.policy)

    def _train_classifier(self, stage: PretrainStage) -> None:
        self._seed_initial_weights()
        model = ImageClassifier(self._recipe.policy.num_classes)

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, condition = self._batch(step, stage.batch_size)
            return classifier_loss(model, pixels_BCHW, condition["label"], self._generator("shift", step))

        self._run_stage("classifier", model, loss, stage, self._recipe.evaluation.classifier)

    def _train_tokenizer(self, stage: PretrainStage) -> None:
        self._seed_initial_weights()
        model = build_tokenizer(self._recipe.tokenizer, image_size=self._recipe.image_size)
        perceptual = build_perceptual_metric(self._recipe.perceptual).to(self._device)

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, _ = self._batch(step, stage.batch_size)
            if step % REVIVE_EVERY == 0 and step < stage.num_steps // 2:
                revive_dead_codes(model, pixels_BCHW, self._generator("revive", step))
            return tokenizer_loss(model, perceptual, pixels_BCHW)

        self._run_stage("tokenizer", model, loss, stage, self._recipe.tokenizer.checkpoint)

    def _train_policy(self, stage: PretrainStage) -> None:
        recipe = self._recipe
        tokenizer = build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
        load_weights(tokenizer, resolve(recipe.tokenizer.checkpoint), what="tokenizer")
        tokenizer.to(self._device).eval().requires_grad_(False)
        self._seed_initial_weights()
        model = build_policy(
            recipe.policy,
            codebook_size=tokenizer.codebook_size,
            grid_size=recipe.grid_size,
            dropout=stage.dropout,
        )

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            pixels_BCHW, condition = self._batch(step, stage.batch_size)
            tokens_BT = tokenizer.encode(pixels_BCHW)
            return next_token_loss(
                model, tokens_BT, condition, stage.condition_drop, self._generator("condition drop", step)
            )

        self._run_stage("policy", model, loss, stage, recipe.policy.checkpoint)

    def _run_stage(
        self, name: str, model: nn.Module, loss: LossFunction, stage: PretrainStage, checkpoint: str
    ) -> None:
        target = resolve(checkpoint)
        if target.exists() and not self._overwrite:
            self._say(f"{name}: {target} is there; kept (--overwrite trains it anew)")
            return
        size = sum(parameter.numel() for parameter in model.parameters())
        self._say(f"{name}: {size:,} parameters, {stage.num_steps} steps of {stage.batch_size} images")
        if stage.initial_weights:
            load_weights(model, resolve(stage.initial_weights), what=name)
        state_path = Path(self._recipe.run.dir) / f"pretrain-{self._recipe.run.name}" / f"{name}.pt"
        num_done = count(1)  # steps of this call; a resumed stage has done more
        with closing(ProgressLine(progress_stream(self._recipe.log))) as line:
            train_stage(
                model.to(self._device),
                loss,
                stage,
                state_path=state_path,
                save_every=self._section.checkpoint_every,
                on_step=lambda progress: line.show(stage_text(name, progress, next(num_done), line.seconds)),
            )
        save_weights(model.state_dict(), target, dtype=torch.float16)
        state_path.unlink(missing_ok=True)
        self._say(f"{name}: wrote {target} ({target.stat().st_size / 1e6:.2f} MB)")

    def _batch(self, step: int, size: int) -> tuple[Tensor, Condition]:
        """The step's images; where none of them can be read, the first ones after them that can."""
        broken: list[BrokenImageError] = []
        for start in range(step * size, step * size + len(self._source) + size, size):
            indices = [self._order.image_index(index) for index in range(start, start + size)]
            batch = batch_of(start_reading(self._source, indices))
            if isinstance(batch, ImageBatch):
                return batch.tensors(self._device)
            broken += batch.values()
        raise DataError(f"none of the images can be read; the first: {broken[0]}")

    def _seed_initial_weights(self) -> None:
        """Called before each model, so that it does not depend on the stages run before it in this process."""
        torch.manual_seed(derive_seed(self._recipe.seed, "initial weights"))

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return generator(self._recipe.seed, purpose, step)
