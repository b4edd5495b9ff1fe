"""The work of an evaluation, in chunks that any actor can run: free-running pictures, scores of held-out images.

A chunk's result depends only on the chunk and the policy, not on the number of actors.

Letters: N pictures or images shown, B held-out images, G samples per group, S samples shown per group, T image
tokens, L valid caption tokens, D width of a caption feature or of hidden states.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.evaluation.conditions import caption_condition, class_labels, held_out_condition
from actors.evaluation.free_running import sample_tokens
from actors.evaluation.pictures import HeldOutPictures
from actors.image_batch import read_readable, to_uint8
from actors.pixel_reward import PixelReward
from actors.rollout_pipeline import RolloutPipeline
from actors.sources.build import build_source
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.machine import autocast
from common.protocols import Condition, ImageSource, ImageTokenizer, PerceptualMetric, Policy
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.token_distribution import log_probabilities

NO_CLASS = -1
SAMPLES_SHOWN = 4


@dataclass(frozen=True)
class EvaluationModels:
    """The recipe and the models that a chunk needs besides the policy."""

    recipe: Recipe
    tokenizer: ImageTokenizer
    perceptual: PerceptualMetric | None
    device: torch.device

    @cached_property
    def held_out(self) -> ImageSource:
        return build_source(self.recipe, "held_out")


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

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> GeneratedPictures:
        sampling = models.recipe.sampling.model_copy(update={"temperature": self.temperature})
        label_N, condition = self._condition(models)
        condition = {name: column.to(models.device) for name, column in condition.items()}
        tokens_NT = sample_tokens(policy, condition, sampling, self.seed, self.sample_indices)
        pixels_NCHW = models.tokenizer.decode(tokens_NT)
        if self.output_size not in (None, pixels_NCHW.shape[-1]):
            pixels_NCHW = F.interpolate(pixels_NCHW.float(), self.output_size, mode="bicubic")
        return GeneratedPictures(np.array(self.sample_indices), label_N, to_uint8(pixels_NCHW))

    def _condition(self, models: EvaluationModels) -> tuple[np.ndarray, Condition]:
        """Labels int64 [N], and the condition columns for the policy."""
        recipe = models.recipe
        if recipe.policy.conditioning == "class":
            label_N = class_labels(
                recipe.sampling.classes, recipe.policy.num_classes, self.seed, self.sample_indices
            )
            return label_N, {"label": torch.from_numpy(label_N)}
        label_N = np.full(len(self.sample_indices), NO_CLASS)
        if self.captions is None:
            return label_N, held_out_condition(models.held_out, self.sample_indices)
        return label_N, caption_condition(self.captions, recipe.policy.caption_length)


@dataclass(frozen=True)
class HeldOutResult:
    """Measurements; the caller weights them. Errors as in the reward: images in [-1, 1], decoded unclamped."""

    mse_BG: np.ndarray  # float32; samples against their source images
    lpips_BG: np.ndarray  # float32; 0 without a perceptual metric
    reconstruction_mse_B: np.ndarray  # float32; of the decoded target tokens, hard to beat for samples
    reconstruction_lpips_B: np.ndarray  # float32
    cross_entropy_B: np.ndarray  # float32, nats per token; of the target tokens given the noisy context
    pictures: HeldOutPictures | None  # of the first images, if the chunk asks for them
    l1_BG: np.ndarray | None = None  # float32; mean absolute error, if the reward has a weight for it


@dataclass(frozen=True)
class HeldOutChunk:
    """Teacher-forced groups of some held-out images; noise and samples are drawn from `seed`.

    The images are the same for every seed, so two seeds differ only by their draws.
    """

    sample_indices: tuple[int, ...]
    seed: int
    num_pictures: int = 0  # number of images to return pictures of

    @torch.no_grad()
    def run(self, policy: Policy, models: EvaluationModels) -> HeldOutResult:
        # The error is measured even if the reward omits it; the caller applies its own weights.
        changes = {
            "seed": self.seed,
            "reward.mse_weight": models.recipe.reward.mse_weight or 1.0,
            "context.condition_drop": 0.0,
            "context.noise_schedule": "constant",  # otherwise a score would depend on the progress of the run
            "advantage.credit": "sample",  # no maps
        }
        recipe = with_changes(models.recipe, changes)
        order = SampleOrder(models.recipe.seed, len(models.held_out))
        pipeline = RolloutPipeline(
            recipe, models.held_out, models.tokenizer, models.perceptual, models.device, order
        )
        groups = pipeline.roll_out(policy, 0, self.sample_indices, StageClock()).groups
        if groups is None:
            raise DataError(f"none of the held-out samples {self.sample_indices} can be read")
        # read again: a rollout does not keep pixels
        images = read_readable(models.held_out, [order.image_index(index) for index in groups.sample_index_B])
        pixels_BCHW, _ = images.tensors(models.device)
        reward = PixelReward(models.tokenizer, models.perceptual, recipe.reward)
        target_B1T = _tokens(groups.target_tokens_BT, models)[:, None]
        ceiling = reward.terms(target_B1T, pixels_BCHW, StageClock())
        return HeldOutResult(
            mse_BG=groups.reward_mse_BG,
            lpips_BG=groups.reward_lpips_BG,
            l1_BG=groups.reward_l1_BG,
            reconstruction_mse_B=ceiling.mse_BG[:, 0].cpu().numpy(),
            reconstruction_lpips_B=ceiling.lpips_BG[:, 0].cpu().numpy(),
            cross_entropy_B=_cross_entropy(policy, groups, models).cpu().numpy(),
            pictures=_pictures(groups, images.pixels_BHWC, models, self.num_pictures)
            if self.num_pictures
            else None,
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
            log_probabilities(policy.logits(hidden_TD), target_T[:, None]).mean()
            for hidden_TD, target_T in zip(hidden_BTD, target_BT, strict=True)
        ]
    return -torch.stack(means)


def _pictures(
    groups: GroupBatch, pixels_BHWC: np.ndarray, models: EvaluationModels, num_pictures: int
) -> HeldOutPictures:
    shown = slice(num_pictures)
    samples_NST = groups.sampled_tokens_BGT[shown, :SAMPLES_SHOWN]
    samples_NSHWC = _decoded(samples_NST.reshape(-1, samples_NST.shape[-1]), models)
    return HeldOutPictures(
        source_NHWC=pixels_BHWC[shown],
        reconstruction_NHWC=_decoded(groups.target_tokens_BT[shown], models),
        samples_NSHWC=samples_NSHWC.reshape(*samples_NST.shape[:2], *samples_NSHWC.shape[1:]),
    )


def _decoded(tokens_NT: np.ndarray, models: EvaluationModels) -> np.ndarray:
    parts = _tokens(tokens_NT, models).split(models.recipe.reward.decode_batch_size)
    return np.concatenate([to_uint8(models.tokenizer.decode(part)) for part in parts])


def _tokens(tokens: np.ndarray, models: EvaluationModels) -> Tensor:
    return torch.from_numpy(tokens).long().to(models.device)


EvaluationChunk = GenerateChunk | HeldOutChunk
