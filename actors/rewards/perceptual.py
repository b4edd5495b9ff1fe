"""The perceptual distance of a sample to its source image, LPIPS or a relative of it."""

from torch import Tensor

from actors.rewards.term import Sources
from common.errors import RecipeError
from common.protocols import PerceptualMetric


class PerceptualDistance:
    """The features of a source image are computed once and serve all of its samples."""

    higher_is_better = False
    stage = "perceptual"

    def __init__(self, metric: PerceptualMetric):
        self._metric = metric

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return self._metric.distance(decoded_BGCHW, self._metric.reference_features(sources.pixels_BCHW))

    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> tuple[Tensor, Tensor]:
        features = self._metric.reference_features(sources.pixels_BCHW)
        map_BGT = self._metric.distance_map(decoded_BGCHW, features, grid_size)
        return map_BGT.mean(dim=-1), map_BGT


def require_maps(metric: object) -> None:
    """RecipeError for a metric, or a class of them, that says how far two pictures are apart but not where."""
    if not hasattr(metric, "distance_map"):
        name = getattr(metric, "__name__", type(metric).__name__)
        raise RecipeError(
            f"advantage.credit is token, but the perceptual metric {name} has no distance_map: use another "
            "perceptual.family, set reward.lpips=0, or advantage.credit=sample"
        )
