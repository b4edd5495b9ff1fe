"""Rates that the GPU is taken to reach, and the seconds that counted work takes at them."""

from dataclasses import dataclass

from common.config.recipe import Recipe
from deploy.planning.actor_counting import ActorWork
from deploy.planning.counting import PublishedWork, Work
from deploy.planning.gpus import MEMORY_UTILISATION, Gpu, Utilisation

_ADAMW_BYTES = 40  # read or written per parameter: clipping its gradient, then weight, gradient and two moments
_AVERAGE_BYTES = 12  # the average, the weight, and the average again


@dataclass(frozen=True)
class Rates:
    """Assumed FLOP per second for each kind of work."""

    transformer: float
    encode: float
    decode: float
    perceptual: float
    judge: float
    memory: float  # bytes per second, of weights and caches that are read for each token


def rates(recipe: Recipe, gpu: Gpu, utilisation: Utilisation) -> Rates:
    matrix_peak = gpu.bfloat16 if recipe.compute.autocast == "bfloat16" else gpu.float32
    decode_peak = gpu.bfloat16 if recipe.reward.decode_dtype == "bfloat16" else gpu.tf32
    reached = utilisation.on(gpu, recipe.compute.compile)
    convolution = reached.convolution * gpu.tf32
    judge_peak = gpu.float32 if recipe.reward_models.autocast == "none" else gpu.bfloat16
    return Rates(
        transformer=reached.transformer * matrix_peak,
        encode=convolution,
        decode=reached.decoder * decode_peak,
        perceptual=convolution,
        judge=reached.transformer * judge_peak,
        memory=MEMORY_UTILISATION * gpu.bytes_per_second,
    )


def forward_seconds(work: ActorWork | PublishedWork, rate: Rates) -> float:
    return (
        work.encode / rate.encode
        + (work.policy + work.head) / rate.transformer
        + work.decode / rate.decode
        + work.perceptual / rate.perceptual
    )


def rollout_seconds(work: ActorWork, rate: Rates) -> float:
    return forward_seconds(work, rate) + _other_seconds(work, rate)


def _other_seconds(work: ActorWork, rate: Rates) -> float:
    """Drawing and judging, and under credit by gradient the way back.

    That one is as fast as the way there: the same convolutions, on the average of decoder and metric.
    """
    forward = work.decode + work.perceptual
    seconds = work.decode / rate.decode + work.perceptual / rate.perceptual
    back = work.gradient * seconds / forward if forward else 0.0
    drawing = max(work.draw / rate.transformer, work.draw_bytes / rate.memory)
    judging = work.judge / rate.judge + work.classifier / rate.perceptual
    return drawing + judging + back + work.price / rate.transformer


def judge_seconds(work: Work, rate: Rates) -> float:
    return work.judge.preferences / rate.judge + work.judge.classifier / rate.perceptual


def updated_bytes(work: Work) -> int:
    """Read or written after a step: by AdamW, and by the decoder's average."""
    return (work.num_trained + work.num_discriminating) * _ADAMW_BYTES + work.num_averaged * _AVERAGE_BYTES


def rank_seconds(work: Work, rate: Rates) -> float:
    learner = work.learner
    of_policy = learner.forward + learner.backward + learner.recomputed
    others = learner.perceptual + learner.discriminator
    return of_policy / rate.transformer + learner.decode / rate.decode + others / rate.perceptual
