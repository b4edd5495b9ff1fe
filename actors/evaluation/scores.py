"""Scores of generated images, over features and logits of a classifier, computed by torch-fidelity.

None of these is comparable with published FID or Inception Score: those are defined over Inception-v3's
features. Ours compare runs that share one classifier, one reference set and one number of samples.

Shape letters: N generated images, M reference images, D features, K classes.
"""

from dataclasses import dataclass

from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

NEIGHBORS = 3
"""The k of precision and recall, as in the paper."""


@dataclass(frozen=True)
class GenerationScores:
    """What one evaluation says about a generator."""

    fd: float  # Fréchet distance over classifier features, lower is better; never call it FID
    inception_score: float  # from 1 to K, higher is better
    accuracy: float  # share from 0 to 1 that the classifier gives the asked label, higher is better
    precision: float  # share from 0 to 1, higher is better: quality
    recall: float  # share from 0 to 1, higher is better: diversity


def score_generated(
    features_ND: Tensor, logits_NK: Tensor, labels_N: Tensor, reference_features_MD: Tensor
) -> GenerationScores:
    """All scores of N generated images that were asked for `labels_N`, against M real ones."""
    precision, recall = precision_recall(features_ND, reference_features_MD)
    return GenerationScores(
        fd=frechet_distance(features_ND, reference_features_MD),
        inception_score=inception_score(logits_NK),
        accuracy=accuracy(logits_NK, labels_N),
        precision=precision,
        recall=recall,
    )


def frechet_distance(features_ND: Tensor, reference_MD: Tensor) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½) of the two sets' Gaussians. Lower is better; 0 for equal sets.

    Heusel et al., NeurIPS 2017, arXiv 1706.08500, there over Inception features (FID); over a classifier of
    ours it is not FID. Falls with growing N and M: compare at equal numbers, with both well above D.
    """
    assert min(len(features_ND), len(reference_MD)) > 1, "a covariance needs two rows"
    statistics = [fid_features_to_statistics(_on_cpu(rows)) for rows in (features_ND, reference_MD)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def inception_score(logits_NK: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)), from 1 to K. Higher is better: sure of each, and all classes drawn.

    Salimans et al., NeurIPS 2016, arXiv 1606.03498, over our classifier's logits. One split of all rows:
    the paper's mean over ten splits depends on the order of the rows, and small splits bias it low.
    """
    return isc_features_to_metric(_on_cpu(logits_NK), splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]


def precision_recall(features_ND: Tensor, reference_MD: Tensor) -> tuple[float, float]:
    """Share of generated images within the reference manifold, and the other way round. Higher is better.

    Kynkäänniemi et al., NeurIPS 2019, arXiv 1904.06991. A set's manifold is the union of balls around its
    members, each as wide as the distance to the member's third nearest neighbour. Both sets need more
    than NEIGHBORS rows.
    """
    assert min(len(features_ND), len(reference_MD)) > NEIGHBORS, "too few rows for their neighbours"
    metrics = prc_features_to_metric(
        _on_cpu(features_ND), _on_cpu(reference_MD), prc_neighborhood=NEIGHBORS, verbose=False
    )
    return metrics[KEY_METRIC_PRECISION], metrics[KEY_METRIC_RECALL]


def accuracy(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Share of images whose largest logit is that of the label they were asked for. Higher is better."""
    return (logits_NK.argmax(1) == labels_N).double().mean().item()


def _on_cpu(rows: Tensor) -> Tensor:
    # float64: float32 statistics lose the small end of the covariances' spectrum, and cdist near zero.
    return rows.detach().cpu().double()
