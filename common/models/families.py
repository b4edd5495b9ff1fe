"""All model families.

Policies and tokenizers are built with random weights, and the caller loads a checkpoint; perceptual metrics come
with their trained weights.
"""

from collections.abc import Callable
from typing import Any, cast

from common.models.janus.conditions import PromptConditions
from common.models.janus.transformer import JanusTransformer
from common.models.llamagen.conditions import conditions_of
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.perceptual.spec import LpipsSpec, ShiftTolerantLpipsSpec
from common.models.specs import PerceptualSpec, PolicySpec, TokenizerSpec
from common.protocols import CaptionFormat, ClassFormat, ConditionFormat, PerceptualMetric

# Each is a union with one member per family: an `nn.Module` that satisfies its protocol.
PolicyModule = LlamaGenTransformer | JanusTransformer
TokenizerModule = VQTokenizer


def _lpips(spec: LpipsSpec, *, trained: bool) -> PerceptualMetric:
    from common.models.perceptual.lpips_metric import LpipsMetric

    return LpipsMetric(spec, trained=trained)


def _shift_tolerant_lpips(spec: ShiftTolerantLpipsSpec, *, trained: bool) -> PerceptualMetric:
    from common.models.perceptual.shift_tolerant_lpips import ShiftTolerantLpips

    return ShiftTolerantLpips(spec, trained=trained)


def _check_lpips(spec: LpipsSpec) -> None:
    from common.models.perceptual.lpips_metric import obtain_trunk

    obtain_trunk(spec)


def _check_shift_tolerant_lpips(spec: ShiftTolerantLpipsSpec) -> None:
    from common.models.perceptual.shift_tolerant_lpips import weights_file

    weights_file(spec)


POLICIES: dict[str, Callable[..., PolicyModule]] = {"llamagen": LlamaGenTransformer, "janus": JanusTransformer}
CONDITIONS: dict[str, Callable[[Any], ConditionFormat]] = {"llamagen": conditions_of, "janus": PromptConditions}
TOKENIZERS: dict[str, Callable[..., TokenizerModule]] = {"llamagen_vq": VQTokenizer}
# Imported on use: their packages import torchvision, and a run needs at most one metric.
PERCEPTUAL_METRICS: dict[str, Callable[..., PerceptualMetric]] = {
    "lpips": _lpips,
    "shift_tolerant_lpips": _shift_tolerant_lpips,
}


# What `check` calls for each metric: it raises if the weights cannot be had.
METRIC_CHECKS: dict[str, Callable[[Any], object]] = {
    "lpips": _check_lpips,
    "shift_tolerant_lpips": _check_shift_tolerant_lpips,
}


def condition_format(spec: PolicySpec) -> ConditionFormat:
    """What a policy of this section is conditioned on."""
    return CONDITIONS[spec.family](spec)


def class_format(spec: PolicySpec) -> ClassFormat:
    """The same, of a class-conditional policy."""
    return cast(ClassFormat, condition_format(spec))


def caption_format(spec: PolicySpec) -> CaptionFormat:
    """The same, of a text-conditional policy."""
    return cast(CaptionFormat, condition_format(spec))


def check_perceptual_metric(spec: PerceptualSpec) -> None:
    """Raise UserError if the metric's weights are missing."""
    METRIC_CHECKS[spec.family](spec)


def build_policy(spec: PolicySpec, *, codebook_size: int, grid_size: int, dropout: float = 0.0) -> PolicyModule:
    """A `Policy` over `grid_size` x `grid_size` tokens of a codebook with `codebook_size` entries."""
    return POLICIES[spec.family](spec, codebook_size=codebook_size, grid_size=grid_size, dropout=dropout)


def build_tokenizer(spec: TokenizerSpec, *, image_size: int) -> TokenizerModule:
    """An `ImageTokenizer` for square pictures of `image_size` pixels."""
    return TOKENIZERS[spec.family](spec, image_size=image_size)


def build_perceptual_metric(spec: PerceptualSpec, *, trained: bool = True) -> PerceptualMetric:
    """A `PerceptualMetric` with its trained weights; with `trained=False` good only for counting its work."""
    return PERCEPTUAL_METRICS[spec.family](spec, trained=trained)
