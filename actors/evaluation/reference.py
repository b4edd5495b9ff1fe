"""The real images that free-running pictures are compared with: from the training split or from a file.

Shape letters: M reference images, D features.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from actors.evaluation.features import Features, extract_features
from actors.evaluation.picture_files import PICTURES, find_pictures, has_array, open_npz, read_array
from actors.evaluation.scores import NEIGHBORS, Reference, Statistics, nearest_distance, statistics
from common.errors import DataError

LEAST = NEIGHBORS + 1  # images that a reference needs
STATISTICS = ("mu", "sigma")


def reference_indices(num_images: int, most: int) -> list[int]:
    """Images spread evenly over the source, which may be sorted by class."""
    count = min(num_images, most)
    return [position * num_images // count for position in range(count)]


def reference_of(features_MD: Tensor, held_out_ND: Tensor) -> Reference:
    """That of the training images with these features, beside N held-out ones. Raises DataError."""
    if len(features_MD) < LEAST:
        raise DataError(f"the training split has {len(features_MD)} readable images: the scores need {LEAST}")
    distance = nearest_distance(held_out_ND, features_MD) if len(held_out_ND) else None
    return Reference(statistics(features_MD), features_MD, distance)


def read_reference(path: Path, dim: int, build: Callable[[], Features]) -> Reference:
    """An `.npz` file, for features of `dim` numbers that `build` makes where they are needed.

    The distance is taken to its `mu` and `sigma` where it has them, precision and recall to its pictures where it
    has them: so does ADM's evaluator. Raises DataError.
    """
    require_reference(path, dim)
    with open_npz(path) as archive:
        arrays = [read_array(archive, name).astype(np.float64) for name in STATISTICS if has_array(archive, name)]
        has_pictures = has_array(archive, PICTURES)
    features_MD = extract_features(build(), find_pictures(path).batches())[0] if has_pictures else None
    if arrays:
        return Reference(Statistics(*arrays), features_MD)
    assert features_MD is not None, "required above"
    return Reference(statistics(features_MD), features_MD)


def require_reference(path: Path, dim: int) -> str:
    """Describe in words what the file holds for features of `dim` numbers. Raises DataError if it is unusable."""
    held = []
    with open_npz(path) as archive:
        if has_array(archive, PICTURES):
            held.append(f"{_require_pictures(path):,} pictures")
        shapes = [read_array(archive, name).shape for name in STATISTICS if has_array(archive, name)]
    if shapes and shapes != [(dim,), (dim, dim)]:
        raise DataError(
            f"mu and sigma of {path} are of shapes {shapes}, and evaluation.features gives {dim} numbers a "
            "picture: name a reference made with the same features"
        )
    held += ["mu and sigma"] if shapes else []
    if not held:
        raise DataError(
            f"{path} has neither {PICTURES} nor mu and sigma: point evaluation.reference at a file that has"
        )
    return " and ".join(held)


def _require_pictures(path: Path) -> int:
    count = find_pictures(path).num_pictures
    if count < LEAST:
        raise DataError(f"{path} holds {count} pictures: the scores need {LEAST} to compare with")
    return count
