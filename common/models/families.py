"""Every model family in one place.

Policies and tokenizers are built with random weights, and the caller loads a checkpoint into them;
perceptual metrics bring their trained weights.
"""

from collections.abc import Callable

from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.perceptual.spec import LpipsSpec, ShiftTolerantLpipsSpec
from common.protocols import PerceptualMetric

# Each is a union with one member a family: a family's class is an `nn.Module` and meets its protocol.
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
# Imported on use: their packages bring torchvision, and a run needs one metric at most.
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
    """A `PerceptualMetric` with its trained weights; without `trained` good for counting its work only."""
    return PERCEPTUAL_METRICS[spec.family](spec, trained=trained)
