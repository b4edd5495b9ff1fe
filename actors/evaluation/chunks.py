"""The work of an evaluation, in chunks that any actor can run: free-running pictures, scores of held-out images.

A chunk's result depends only on the chunk and the policy, not on the number of actors.

Letters: N pictures or images shown, B held-out images, G samples per group, S samples shown per group, T image
tokens, L valid caption tokens, D width of a caption feature or of hidden states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.evaluation.conditions import class_labels, held_out_condition, readable, stacked
from actors.evaluation.features import Features, build_features, extract_features
from actors.evaluation.free_running import sample_tokens
from actors.evaluation.pictures import HeldOutPictures
from actors.image_batch import ImageBatch, batch_of, read_readable, start_reading, to_tensor, to_uint8
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.pixel_errors import SquaredError
from actors.rewards.preference import RewardModels, prompt_of
from actors.rewards.table import build_terms, load_judges
from actors.rewards.term import RewardTerm, Sources
from actors.rollout_pipeline import RolloutPipeline
from actors.rollouts.rollout import RolloutSettings
from actors.sources.build import build_source
from actors.sources.split import Split
from common.clock import StageClock
from common.config.recipe import Recipe
from common.machine import autocast
from common.models.families import caption_format, class_format
from common.protocols import Condition, ImageSource, ImageTokenizer, PerceptualMetric, Policy
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.token_distribution import TokenDistribution

NO_CLASS = -1
SAMPLES_SHOWN = 4


@dataclass(frozen=True)
class EvaluationModels:
    """The recipe and the models that a chunk needs besides the policy."""

    recipe: Recipe
    tokenizer: ImageTokenizer
    perceptual: PerceptualMetric | None  # None where nothing is scored by it
    device: torch.device

    @cached_property
    def features(self) -> Features:
        return build_features(self.recipe, self.device)

    @cached_property
    def train(self) -> ImageSource:
        return build_source(self.recipe, "train")

    @cached_property
    def held_out(self) -> ImageSource:
        return build_source(self.recipe, "held_out")

    @cached_property
    def terms(self) -> dict[str, RewardTerm]:
        """Those of the reward; one of the user's own may hold a model."""
        judges = load_judges(self.recipe, self.device, self.reward_models)
        return build_terms(self.recipe.reward, self.perceptual, judges)

    @cached_property
    def reward_models(self) -> RewardModels:
        """Shared by the reward and the scores."""
        return RewardModels(self.recipe, self.device)

    @cached_property
    def held_out_reward(self) -> DecodedReward:
        """The terms of the reward, and the squared error in any case; without maps, and decoded in float32."""
        return DecodedReward(self.tokenizer, {"mse": SquaredError()} | self.terms, self.recipe.reward)


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
        pixels_NHWC = _decoded(tokens_NT, models, self.output_size)
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
class FeaturesChunk:
    """The features of free-running pictures, which stay where they were drawn."""

    generate: GenerateChunk
    num_shown: int = 0

    def run(self, policy: Policy, models: EvaluationModels) -> PictureFeatures:
        drawn = self.generate.run(policy, models)
        features_ND, logits_NK = extract_features(models.features, [drawn.pixels_NHWC])
        shown_NHWC = np.array(drawn.pixels_NHWC[: self.num_shown])
        preferences = self._preferences(drawn, models)
        return PictureFeatures(features_ND.numpy(), logits_NK.numpy(), drawn.label_N, shown_NHWC, preferences)

    def _preferences(self, drawn: GeneratedPictures, models: EvaluationModels) -> dict[str, np.ndarray]:
        names = models.recipe.evaluation.scores
        if not names:
            return {}
        prompts = [prompt_of(models.recipe, text) for text in _texts(drawn, models)]
        pixels_NCHW = (to_tensor(np.array(drawn.pixels_NHWC), models.device) + 1) / 2
        return {name: models.reward_models.judge(name).judge(pixels_NCHW, prompts).cpu().numpy() for name in names}


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


@dataclass(frozen=True)
class HeldOutResult:
    """Facts; the caller weighs them. The terms are those of the reward, and the squared error in any case."""

    terms: Mapping[str, np.ndarray]  # float32 [B, G] by name; samples against their source images
    reconstruction: Mapping[str, np.ndarray]  # float32 [B]; of the target tokens: a ceiling for the samples
    higher_is_better: frozenset[str]  # names of terms
    cross_entropy_B: np.ndarray  # float32, nats per token; of the target tokens given the noisy context
    pictures: HeldOutPictures | None  # of the first images, where the chunk asks for them


@dataclass(frozen=True)
class Unscored:
    """In the place of a result: no image of the chunk could be read and scored."""

    reason: str


@dataclass(frozen=True)
class HeldOutChunk:
    """Teacher-forced groups of some held-out images; noise and samples are drawn from `seed`.

    The images are the same for every seed, so two seeds differ only by their draws.
    """

    sample_indices: tuple[int, ...]
    seed: int
    num_pictures: int = 0  # number of images to return pictures of

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> HeldOutResult | Unscored:
        recipe, source = models.recipe.of_kind("teacher_forced"), models.held_out
        settings = RolloutSettings.of(recipe)
        context = replace(settings.context, level=lambda _: recipe.context.noise)  # whatever the place in the run
        settings = replace(
            settings,
            seed=self.seed,
            group_size=recipe.group.size,
            condition_drop=0.0,
            context=context,
            keeps_pixels=False,
        )
        order = SampleOrder(recipe.seed, len(source))
        reward = models.held_out_reward
        pipeline = RolloutPipeline(recipe, source, models.tokenizer, reward, models.device, order, settings)
        rollout = pipeline.roll_out(policy, 0, self.sample_indices, StageClock())
        groups = rollout.groups
        if groups is None:
            first = rollout.skipped[0]
            return Unscored(f"{first.image_id}: {first.reason}")
        # read again: a rollout keeps no pixels
        images = read_readable(source, [order.image_index(index) for index in groups.sample_index_B])
        pixels_BCHW, condition = images.tensors(models.device)
        target_B1T = _tokens(groups.target_tokens_BT, models)[:, None]
        sources = Sources(pixels_BCHW, condition, images.image_ids, images.texts)
        ceiling = reward.measure(target_B1T, sources, StageClock())
        shows = self.num_pictures > 0
        return HeldOutResult(
            terms=groups.reward_terms,
            reconstruction={name: term_B1[:, 0].cpu().numpy() for name, term_B1 in ceiling.terms.items()},
            higher_is_better=groups.higher_is_better,
            cross_entropy_B=_cross_entropy(policy, groups, models).cpu().numpy(),
            pictures=_pictures(groups, images.pixels_BHWC, models, self.num_pictures) if shows else None,
        )


def _cross_entropy(policy: Policy, groups: GroupBatch, models: EvaluationModels) -> Tensor:
    """The CE prior of each group, float32 [B]: computed as in the learner, given the context and the condition.

    Only one image's logits exist at a time.
    """
    condition = {name: torch.from_numpy(column).to(models.device) for name, column in groups.condition.items()}
    target_BT = _tokens(groups.target_tokens_BT, models)
    with autocast(models.recipe.compute, models.device):
        hidden_BTD = policy(condition, _tokens(groups.context_tokens_BT, models), head=False)
        means = [
            TokenDistribution().log_probabilities(policy.logits(hidden_TD), target_T[:, None]).mean()
            for hidden_TD, target_T in zip(hidden_BTD, target_BT, strict=True)
        ]
    return -torch.stack(means)


def _pictures(
    groups: GroupBatch, pixels_BHWC: np.ndarray, models: EvaluationModels, num_pictures: int
) -> HeldOutPictures:
    shown = slice(num_pictures)
    samples_NST = groups.sampled_tokens_BGT[shown, :SAMPLES_SHOWN]
    samples_NSHWC = _decoded(_tokens(samples_NST.reshape(-1, samples_NST.shape[-1]), models), models)
    return HeldOutPictures(
        source_NHWC=pixels_BHWC[shown],
        reconstruction_NHWC=_decoded(_tokens(groups.target_tokens_BT[shown], models), models),
        samples_NSHWC=samples_NSHWC.reshape(*samples_NST.shape[:2], *samples_NSHWC.shape[1:]),
    )


def _decoded(tokens_NT: Tensor, models: EvaluationModels, output_size: int | None = None) -> np.ndarray:
    """Pictures uint8 [N, H, W, 3], decoded a few at a time; `output_size` as in `GenerateChunk`."""
    parts = []
    for part_NT in tokens_NT.split(models.recipe.reward.decode_batch_size):
        pixels_NCHW = models.tokenizer.decode(part_NT)
        if output_size not in (None, pixels_NCHW.shape[-1]):
            pixels_NCHW = F.interpolate(pixels_NCHW.float(), output_size, mode="bicubic")
        parts.append(to_uint8(pixels_NCHW))
    return np.concatenate(parts)


def _tokens(tokens: np.ndarray, models: EvaluationModels) -> Tensor:
    return torch.from_numpy(tokens).long().to(models.device)


EvaluationChunk = GenerateChunk | FeaturesChunk | ReferenceChunk | HeldOutChunk
