"""The work of an evaluation, in chunks that any actor can run: free-running pictures, scores of held-out images.

A chunk's result depends only on the chunk and the policy, not on the number of actors. Where judges are apart, a
chunk that needs some comes to something `Unjudged`, which they complete.

Letters: N pictures, M images, L valid caption tokens, D width of a caption feature or of features, K logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from actors.evaluation.conditions import class_labels, held_out_condition, readable, stacked
from actors.evaluation.features import extract_features
from actors.evaluation.free_running import sample_tokens
from actors.evaluation.held_out import HeldOutChunk, UnjudgedHeldOut
from actors.evaluation.models import EvaluationModels
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.judging import Judging
from actors.rewards.preference import prompt_of
from actors.sources.split import Split
from common.models.families import caption_format, class_format
from common.protocols import Condition, Policy

NO_CLASS = -1


@dataclass(frozen=True)
class GeneratedPictures:
    sample_index_N: np.ndarray  # int64
    label_N: np.ndarray  # int64, chosen by `sampling.classes`; NO_CLASS if the condition is captions
    pixels_NHWC: np.ndarray  # uint8


@dataclass(frozen=True)
class GenerateChunk:
    """Free-running pictures. Without `captions`, a text-conditional policy uses the held-out captions in turn."""

    sample_indices: tuple[int, ...]
    seed: int
    temperature: float
    captions: tuple[np.ndarray, ...] | None = None  # N features of prompts, float16 [L, D] each
    output_size: int | None = None  # pixels; None keeps the decoded size
    guidance_scale: float | None = None  # None: that of the recipe

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> GeneratedPictures:
        changes = {"temperature": self.temperature}
        if self.guidance_scale is not None:
            changes["guidance_scale"] = self.guidance_scale
        sampling = models.recipe.sampling.model_copy(update=changes)
        label_N, condition = self._condition(models)
        condition = {name: column.to(models.device) for name, column in condition.items()}
        tokens_NT = sample_tokens(policy, condition, sampling, self.seed, self.sample_indices)
        pixels_NHWC = models.decoded(tokens_NT, self.output_size)
        return GeneratedPictures(np.array(self.sample_indices), label_N, pixels_NHWC)

    def _condition(self, models: EvaluationModels) -> tuple[np.ndarray, Condition]:
        """Labels int64 [N], and the condition columns for the policy."""
        recipe = models.recipe
        if recipe.policy.conditioning == "class":
            label_N = class_labels(
                recipe.sampling.classes,
                recipe.policy.num_classes,
                self.seed,
                self.sample_indices,
                lambda: models.train,
            )
            rows = class_format(recipe.policy)
            return label_N, stacked([rows.of_class(label) for label in label_N])
        label_N = np.full(len(self.sample_indices), NO_CLASS)
        if self.captions is None:
            return label_N, held_out_condition(models.held_out, self.sample_indices)
        captions = caption_format(recipe.policy)
        return label_N, stacked([captions.of_caption(each) for each in self.captions])


@dataclass(frozen=True)
class PictureFeatures:
    """What scores are made of. Of the pictures themselves only the few that are shown."""

    features_ND: np.ndarray  # float32
    logits_NK: np.ndarray  # float32
    label_N: np.ndarray  # int64, as in GeneratedPictures
    shown_NHWC: np.ndarray  # uint8, the first
    preferences: Mapping[str, np.ndarray] = field(default_factory=dict)  # float32 [N], by evaluation.scores


@dataclass(frozen=True)
class UnjudgedFeatures:
    """Pictures that `evaluation.scores` have yet to judge."""

    features: PictureFeatures  # without preferences
    pixels_NHWC: np.ndarray  # uint8
    prompts: tuple[str, ...]  # [N]

    def complete(self, judging: Judging) -> PictureFeatures:
        return replace(self.features, preferences=judging.preferences(self.pixels_NHWC, self.prompts))


@dataclass(frozen=True)
class FeaturesChunk:
    """The features of free-running pictures, which stay where they were drawn; judges apart see them as well."""

    generate: GenerateChunk
    num_shown: int = 0

    def run(self, policy: Policy, models: EvaluationModels) -> PictureFeatures | UnjudgedFeatures:
        """The result, or what judges need to complete it where they are apart."""
        drawn = self.generate.run(policy, models)
        features_ND, logits_NK = extract_features(models.features, [drawn.pixels_NHWC])
        shown_NHWC = np.array(drawn.pixels_NHWC[: self.num_shown])
        features = PictureFeatures(features_ND.numpy(), logits_NK.numpy(), drawn.label_N, shown_NHWC)
        if not models.recipe.evaluation.scores:
            return features
        prompts = tuple(prompt_of(models.recipe, text) for text in _texts(drawn, models))
        unjudged = UnjudgedFeatures(features, drawn.pixels_NHWC, prompts)
        return unjudged if models.judges_apart else unjudged.complete(models.judging)


def _texts(drawn: GeneratedPictures, models: EvaluationModels) -> list[str]:
    """What the pictures were asked for: names of classes, or captions of held-out images in turn."""
    if models.recipe.policy.conditioning == "text":
        return [readable(models.held_out, index).text for index in drawn.sample_index_N]
    names = models.train.class_names
    return [names[label] if label < len(names) else "" for label in drawn.label_N]


@dataclass(frozen=True)
class ReferenceChunk:
    """The features of some images of a split, float32 [M, D]; without those that cannot be read."""

    image_indices: tuple[int, ...]
    split: Split = "train"

    def run(self, policy: Policy, models: EvaluationModels) -> np.ndarray:
        source = models.train if self.split == "train" else models.held_out
        batch = batch_of(start_reading(source, self.image_indices))
        if not isinstance(batch, ImageBatch):
            return np.zeros((0, models.features.dim), np.float32)
        return extract_features(models.features, [batch.pixels_BHWC])[0].numpy()


EvaluationChunk = GenerateChunk | FeaturesChunk | ReferenceChunk | HeldOutChunk
Unjudged = UnjudgedFeatures | UnjudgedHeldOut
"""A chunk's result to be: the scores of judges are missing, and their pictures there."""
