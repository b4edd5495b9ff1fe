"""Scores of free-running pictures over a network's features and logits, computed by torch-fidelity.

Over Inception-v3 they are the scores of the literature: the Fréchet distance is FID. Over our own classifier they
compare only runs with the same classifier, reference and number of samples. sFID is missing because torch-fidelity
does not compute it.

Shape letters: N generated images, M reference images, D features, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
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
SPLIT = 5000
"""Pictures per inception score, as in ADM's evaluator; the scores of several splits are averaged."""
DISTANCES_AT_ONCE = 4_000_000
"""Pairwise distances in memory at a time: 32 MB, however many pictures there are."""


@dataclass(frozen=True)
class Statistics:
    """The Gaussian fitted to a set of features."""

    mean_D: np.ndarray  # float64
    covariance_DD: np.ndarray  # float64


@dataclass(frozen=True)
class Reference:
    """The real images that generated ones are compared with."""

    statistics: Statistics
    features_MD: Tensor | None  # None if only the statistics are known
    held_out_distance: float | None = None  # of held-out images, as `nearest_distance`; None if it is not known


@dataclass(frozen=True)
class GenerationScores:
    """One evaluation's scores of a generator."""

    frechet_distance: float  # lower is better; it is FID only over Inception's features
    inception_score: float  # from 1 to K, higher is better
    accuracy: float | None  # share classified as the requested label, higher is better; None without labels
    precision: float | None  # share, higher is better: quality; None without reference features
    recall: float | None  # share, higher is better: diversity; None without reference features
    nearest_training: float | None = None  # 1: as far from training images as held-out ones are; 0: copies


def score_generated(
    features_ND: Tensor, logits_NK: Tensor, labels_N: Tensor | None, reference: Reference
) -> GenerationScores:
    """All scores of N generated images; `labels_N` holds the requested labels, if they have classes."""
    precision = recall = nearest_training = None
    if reference.features_MD is not None:
        precision, recall = precision_recall(features_ND, reference.features_MD)
        if reference.held_out_distance:
            nearest_training = nearest_distance(features_ND, reference.features_MD) / reference.held_out_distance
    return GenerationScores(
        frechet_distance=frechet_distance(statistics(features_ND), reference.statistics),
        inception_score=inception_score(logits_NK),
        accuracy=None if labels_N is None else accuracy(logits_NK, labels_N),
        precision=precision,
        recall=recall,
        nearest_training=nearest_training,
    )


def statistics(features_ND: Tensor) -> Statistics:
    """Mean and unbiased covariance of N > 1 rows."""
    assert len(features_ND) > 1, "a covariance needs two rows"
    found = fid_features_to_statistics(_on_cpu(features_ND))
    return Statistics(found["mu"], found["sigma"])


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½). Lower is better; 0 for equal sets.

    Heusel et al., NeurIPS 2017, arXiv 1706.08500. Over Inception features this is FID; over our own classifier it
    is not. It falls as N and M grow: compare at equal numbers, both well above D.
    """
    pair = [{"mu": of.mean_D, "sigma": of.covariance_DD} for of in (one, other)]
    return fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID]


def inception_score(logits_NK: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)), from 1 to K. Higher is better: confident, and diverse over classes.

    Salimans et al., NeurIPS 2016, arXiv 1606.03498. The mean over consecutive splits of SPLIT rows, with the
    remainder spread over them; over all rows if there are fewer, because small splits bias it low.
    """
    splits = max(1, len(logits_NK) // SPLIT)
    return isc_features_to_metric(_on_cpu(logits_NK), splits=splits, shuffle=False)[KEY_METRIC_ISC_MEAN]


def precision_recall(features_ND: Tensor, reference_MD: Tensor) -> tuple[float, float]:
    """Share of generated images within the reference manifold, and vice versa. Higher is better.

    Kynkäänniemi et al., NeurIPS 2019, arXiv 1904.06991. A set's manifold is the union of balls around its members;
    each radius is the distance to the third nearest neighbour. Both sets need more than NEIGHBORS rows.
    """
    assert min(len(features_ND), len(reference_MD)) > NEIGHBORS, "too few rows for their neighbours"
    rows = DISTANCES_AT_ONCE // max(len(features_ND), len(reference_MD))
    metrics = prc_features_to_metric(
        _on_cpu(features_ND),
        _on_cpu(reference_MD),
        prc_neighborhood=NEIGHBORS,
        prc_batch_size=max(1, rows),
        save_cpu_ram=True,
        verbose=False,
    )
    return metrics[KEY_METRIC_PRECISION], metrics[KEY_METRIC_RECALL]


def nearest_distance(features_ND: Tensor, reference_MD: Tensor) -> float:
    """Median over the images of the distance to the nearest reference image: 0 where they are copies."""
    reference_MD = _on_cpu(reference_MD)
    rows = max(1, DISTANCES_AT_ONCE // len(reference_MD))
    nearest = [torch.cdist(part, reference_MD).amin(dim=1) for part in _on_cpu(features_ND).split(rows)]
    return torch.cat(nearest).median().item()


def psnr(mse_N: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in [-1, 1] from their mean squared errors; at most 100 dB."""
    return 10 * torch.log10(4 / mse_N.clamp(min=4e-10))


def accuracy(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Share of images whose largest logit is that of the requested label. Higher is better."""
    return (logits_NK.argmax(1) == labels_N).double().mean().item()


def _on_cpu(rows: Tensor) -> Tensor:
    # float64: in float32 the covariances lose their small eigenvalues, and cdist its small distances.
    return rows.detach().cpu().double()
