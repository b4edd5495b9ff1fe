"""The real images that free-running pictures are compared with: from the training split or from a file.

Shape letters: M reference images, D features.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from actors.evaluation.features import Features, extract_features
from actors.evaluation.picture_files import PICTURES, find_pictures, has_array, open_npz, read_array
from actors.evaluation.scores import NEIGHBORS, Reference, Statistics, statistics
from actors.image_batch import read_readable
from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.errors import DataError
from common.paths import resolve
from common.protocols import ImageSource

BATCH = 250
LEAST = NEIGHBORS + 1  # fewest images in a reference
STATISTICS = ("mu", "sigma")


def build_reference(recipe: Recipe, features: Features) -> Reference:
    """The reference in `evaluation.reference`, else from the training split's images. Raises DataError."""
    section = recipe.evaluation
    if section.reference:
        return read_reference(resolve(section.reference), features)
    features_MD, _ = extract_features(features, _spread(build_source(recipe, "train"), section.num_reference))
    if len(features_MD) < LEAST:
        raise DataError(f"the training split has {len(features_MD)} readable images: the scores need {LEAST}")
    return Reference(statistics(features_MD), features_MD)


def read_reference(path: Path, features: Features) -> Reference:
    """Read an `.npz` file. As in ADM's evaluator, its `mu` and `sigma`, if present, serve the distance, and its
    pictures, if present, precision and recall. Raises DataError.
    """
    require_reference(path, features.dim)
    with open_npz(path) as archive:
        arrays = [read_array(archive, name).astype(np.float64) for name in STATISTICS if has_array(archive, name)]
        has_pictures = has_array(archive, PICTURES)
    features_MD = extract_features(features, find_pictures(path).batches())[0] if has_pictures else None
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


def _spread(source: ImageSource, most: int) -> Iterator[np.ndarray]:
    """Images spread evenly over the source, which may be sorted by class."""
    count = min(len(source), most)
    indices = [position * len(source) // count for position in range(count)]
    for start in range(0, count, BATCH):
        yield read_readable(source, indices[start : start + BATCH]).pixels_BHWC
