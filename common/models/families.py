"""All model families.

Policies and tokenizers are built with random weights, and the caller loads a checkpoint; perceptual metrics come
with their trained weights.
"""

from collections.abc import Callable

from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.perceptual.spec import LpipsSpec, ShiftTolerantLpipsSpec
from common.protocols import PerceptualMetric

# Each is a union with one member per family; a family's class is an `nn.Module` that satisfies its protocol.
PolicySpec = LlamaGenPolicySpec
PolicyModule = LlamaGenTransformer
TokenizerSpec = LlamaGenTokenizerSpec
TokenizerModule = VQTokenizer
PerceptualSpec = LpipsSpec | ShiftTolerantLpipsSpec


def _lpips(spec: LpipsSpec, *, trained: bool) -> PerceptualMetric:
    from common.models.perceptual.lpips_metric import LpipsMetric

    return LpipsMetric(spec, trained=trained)


def _shift_tolerant_lpips(spec: ShiftTolerantLpipsSpec, *, trained: bool) -> PerceptualMetric:
    from common.models.perceptual.shift_tolerant_lpips import ShiftTolerantLpips

    return ShiftTolerantLpips(spec, trained=trained)


POLICIES: dict[str, Callable[..., PolicyModule]] = {"llamagen": LlamaGenTransformer}
TOKENIZERS: dict[str, Callable[..., TokenizerModule]] = {"llamagen_vq": VQTokenizer}
# Imported on use: their packages import torchvision, and a run needs at most one metric.
PERCEPTUAL_METRICS: dict[str, Callable[..., PerceptualMetric]] = {
    "lpips": _lpips,
    "shift_tolerant_lpips": _shift_tolerant_lpips,
}


def build_policy(spec: PolicySpec, *, codebook_size: int, grid_size: int, dropout: float = 0.0) -> PolicyModule:
    """A `Policy` over `grid_size` x `grid_size` tokens of a codebook with `codebook_size` entries."""
    return POLICIES[spec.family](spec, codebook_size=codebook_size, grid_size=grid_size, dropout=dropout)


def build_tokenizer(spec: TokenizerSpec, *, image_size: int) -> TokenizerModule:
    """An `ImageTokenizer` for square pictures of `image_size` pixels."""
    return TOKENIZERS[spec.family](spec, image_size=image_size)


def build_perceptual_metric(spec: PerceptualSpec, *, trained: bool = True) -> PerceptualMetric:
    """A `PerceptualMetric` with its trained weights; with `trained=False` good only for counting its work."""
    return PERCEPTUAL_METRICS[spec.family](spec, trained=trained)
