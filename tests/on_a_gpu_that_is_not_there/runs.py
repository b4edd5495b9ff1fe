"""What a reward actor, a learner rank and an evaluation do on their device, each once, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from actors.evaluation.chunks import GenerateChunk
from actors.evaluation.held_out import HeldOutChunk, HeldOutResult
from actors.evaluation.models import EvaluationModels
from actors.incoming_weights import IncomingWeights
from actors.rewards.build import reward_of
from actors.rollout_pipeline import RolloutPipeline
from common.clock import StageClock
from common.config.recipe import Recipe
from common.machine import prepare_device
from common.models.families import caption_format, class_format
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer, load_trained
from common.models.lora import trained_tensors
from common.protocols import SourceImage
from common.schema import GroupBatch
from common.types import WeightSnapshot
from common.weights.snapshot import (
    WeightsBuffer,
    as_array,
    linear_parameters,
    load_snapshot,
    make_bfloat16,
    take_snapshot,
    tensors_of,
)
from learner.optimizer import load_optimizer_arrays, optimizer_arrays
from learner.step_sums import StepSums
from learner.train_step import Trainer
from tests.fake_cuda.gpu import fake_cuda

Arrays = Mapping[str, np.ndarray]


class RandomPictures:
    """An image source of noise, with classes or captions as the recipe's policy is conditioned on."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe

    def __len__(self) -> int:
        return 50

    def read(self, index: int) -> SourceImage:
        draws, size, policy = np.random.default_rng(index), self._recipe.image_size, self._recipe.policy
        pixels_HWC = draws.integers(0, 255, (size, size, 3), dtype=np.uint8)
        if policy.conditioning == "class":
            return SourceImage(f"picture {index}", pixels_HWC, class_format(policy).of_class(index % 10))
        features_LD = draws.standard_normal((2 + index % 4, policy.caption_dim)).astype(np.float16)
        return SourceImage(f"picture {index}", pixels_HWC, caption_format(policy).of_caption(features_LD))


class Actor:
    """A reward actor without Ray."""

    def __init__(self, recipe: Recipe):
        self.device = prepare_device(recipe.compute)
        tokenizer, metric = load_tokenizer(recipe, self.device), load_perceptual_metric(recipe, self.device)
        self.policy = load_policy(recipe, self.device)
        self.models = EvaluationModels(recipe, tokenizer, metric, self.device)
        self._trained = tokenizer if recipe.trains_decoder else self.policy
        source = self.models.__dict__["held_out"] = RandomPictures(recipe)
        terms = self.models.comparing_terms | self.models.judging.terms
        reward = reward_of(recipe.reward, tokenizer, terms, recipe.advantage.credit)
        self._pipeline = RolloutPipeline(recipe, source, tokenizer, reward, self.device)
        if recipe.has_narrow_weights:
            make_bfloat16(self.policy, linear_parameters(self.policy))
        self._incoming = IncomingWeights(lambda _, snapshot: snapshot[0], self.device)
        self._ticket = range(recipe.actors.images_per_ticket)

    def roll_out(self) -> GroupBatch:
        rolled = self._pipeline.roll_out(self.policy, 0, self._ticket, StageClock(self.device))
        assert not rolled.skipped, str(rolled.skipped)
        assert rolled.groups is not None
        return rolled.groups

    def take(self, weights: WeightSnapshot) -> None:
        self._incoming.load_into(self._trained, weights.version, [weights])

    def generate(self) -> np.ndarray:
        return GenerateChunk((0, 1, 2), seed=5, temperature=1.0).run(self.policy, self.models).pixels_NHWC

    def score(self) -> Arrays:
        result = HeldOutChunk((0, 1), seed=5, num_pictures=1).run(self.policy, self.models)
        assert isinstance(result, HeldOutResult)
        return {**result.terms, "cross_entropy": result.cross_entropy_B}


class Rank:
    """A learner rank without Ray, and without others."""

    def __init__(self, recipe: Recipe):
        self._device = prepare_device(recipe.compute)
        self.model = load_trained(recipe, self._device)
        self._trainer = Trainer(self.model, recipe, self._device)
        self.is_narrow = recipe.has_narrow_weights
        narrow = linear_parameters(self.model) if self.is_narrow else ()
        self._weights = WeightsBuffer(trained_tensors(self.model), narrow)

    def train(self, groups: GroupBatch) -> StepSums:
        sums, norm = self._trainer.train(groups, StageClock(self._device))
        assert np.isfinite(norm), "the gradient is not finite"
        return sums

    def publish(self) -> WeightSnapshot:
        """What actors compute with."""
        self._weights.fill(trained_tensors(self.model))
        return self._weights.snapshot(version=1)

    def state(self) -> tuple[WeightSnapshot, Arrays]:
        """What another rank, or a checkpoint, goes on with."""
        moments = optimizer_arrays(self._trainer.optimizer, self.model)
        return take_snapshot(self.model, 1), {name: array.copy() for name, array in moments.items()}

    def resume(self, weights: WeightSnapshot, moments: Arrays) -> None:
        load_snapshot(self.model, weights)
        load_optimizer_arrays(self._trainer.optimizer, self.model, moments)
        self._trainer.step = 1


@dataclass(frozen=True)
class Outcome:
    groups: GroupBatch
    steps: tuple[StepSums, StepSums]
    weights: Arrays
    moments: Arrays
    pictures_NHWC: np.ndarray
    scores: Arrays


def run_everything(recipe: Recipe) -> Outcome:
    """A ticket; a step; another one on the same groups, now old, in a rank that took over; pictures and scores."""
    actor, rank, successor = Actor(recipe), Rank(recipe), Rank(recipe)
    groups = actor.roll_out()
    first = rank.train(groups)
    successor.resume(*rank.state())
    second = successor.train(groups)
    weights, moments = successor.state()
    actor.take(successor.publish())
    arrays = {name: as_array(tensor) for name, tensor in tensors_of(weights).items()}
    return Outcome(groups, (first, second), arrays, moments, actor.generate(), actor.score())


def run_on_a_gpu(recipe: Recipe) -> Outcome:
    """The same on a GPU that is not there, which must have had its share of the work; or on one that is."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        return run_everything(recipe)
    with fake_cuda() as counts:
        outcome = run_everything(recipe)
    assert counts.kernels.total() > 5000, "the GPU had nothing to do"
    if recipe.compute.autocast == "bfloat16":
        assert counts.cast_bytes.total() > 2_000_000, "bfloat16 was not used"
    return outcome
