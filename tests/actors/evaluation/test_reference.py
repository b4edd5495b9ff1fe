"""What free-running pictures are compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.evaluation.chunks import ReferenceChunk
from actors.evaluation.features import Features
from actors.evaluation.models import EvaluationModels
from actors.evaluation.reference import read_reference, reference_indices, reference_of, require_reference
from actors.evaluation.scores import Reference
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError


class Corners:
    """Two features a picture: the red of two of its corners."""

    dim, distance_name, batch_size, knows_labels = 2, "fd", 3, False

    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        corners_N2 = torch.from_numpy(pixels_NHWC[:, 0, [0, -1], 0]).float()
        return corners_N2, corners_N2


def no_features() -> Features:
    raise AssertionError("statistics need no features")


def reference_of_split(recipe: Recipe, size: int = 40) -> Reference:
    """That of the training split, whose images are looked at `size` at a time."""
    models = EvaluationModels(recipe, None, None, torch.device("cpu"))  # type: ignore[arg-type]
    models.__dict__["features"] = Corners()  # what the cached property would load
    indices = reference_indices(len(models.train), recipe.evaluation.num_reference)
    chunks = [ReferenceChunk(tuple(indices[start : start + size])) for start in range(0, len(indices), size)]
    parts = [chunk.run(None, models) for chunk in chunks]  # type: ignore[arg-type]
    return reference_of(torch.from_numpy(np.concatenate(parts)), torch.zeros(0, 2))


PICTURES_NHWC = np.random.default_rng(0).integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
CORNERS_N2 = PICTURES_NHWC[:, 0, [0, -1], 0].astype(float)
MU, SIGMA = np.array([1.0, 2.0]), np.array([[3.0, 1.0], [1.0, 4.0]], np.float32)


@pytest.fixture
def recipe(tiny_recipe: Recipe, tmp_path: Path) -> Recipe:
    """40 pictures, each of the shade of its number, in two class folders."""
    for index in range(40):
        folder = tmp_path / "pictures" / ("a" if index < 20 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), index, np.uint8)).save(folder / f"{index:02d}.png")
    source = {"kind": "image_folder", "path": str(tmp_path / "pictures")}
    return with_changes(tiny_recipe, {"source": source})


def test_it_is_the_training_split(recipe: Recipe) -> None:
    reference = reference_of_split(recipe)
    assert reference.features_MD is not None
    assert reference.features_MD[:, 0].tolist() == list(range(40))
    np.testing.assert_allclose(reference.statistics.mean_D, [19.5, 19.5])
    np.testing.assert_allclose(reference.statistics.covariance_DD, np.full((2, 2), 136.6667), rtol=1e-5)


def test_held_out_images_are_not_in_it(recipe: Recipe) -> None:
    split = with_changes(recipe, {"source.held_out_fraction": 0.25})
    features_MD = reference_of_split(split).features_MD
    assert features_MD is not None
    held_out = build_source(split, "held_out")
    shades = {int(held_out.read(index).pixels[0, 0, 0]) for index in range(len(held_out))}
    assert len(shades) == 10
    assert {int(shade) for shade in features_MD[:, 0]} == set(range(40)) - shades


def test_where_it_is_limited_images_are_taken_from_all_over_the_split(recipe: Recipe) -> None:
    limited = with_changes(recipe, {"evaluation.num_reference": 20})
    features_MD = reference_of_split(limited).features_MD
    assert features_MD is not None
    assert features_MD[:, 0].tolist() == list(range(0, 40, 2))  # not the first class alone


def test_a_training_split_of_too_few_images_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    for path in sorted((tmp_path / "pictures").rglob("*.png"))[3:]:
        path.unlink()
    with pytest.raises(DataError, match="the training split has 3 readable images: the scores need 4"):
        reference_of_split(recipe)


def test_two_chunks_of_it_are_as_one(recipe: Recipe) -> None:
    one, two = reference_of_split(recipe), reference_of_split(recipe, size=25)
    assert one.features_MD is not None
    assert two.features_MD is not None
    np.testing.assert_array_equal(two.features_MD, one.features_MD)
    np.testing.assert_array_equal(two.statistics.mean_D, one.statistics.mean_D)
    np.testing.assert_array_equal(two.statistics.covariance_DD, one.statistics.covariance_DD)


def test_images_that_cannot_be_read_are_left_out_be_they_all_of_a_chunk(recipe: Recipe, tmp_path: Path) -> None:
    for index in (3, 30, 31, 32, 33, 34):
        next((tmp_path / "pictures").rglob(f"{index:02d}.png")).write_bytes(b"no picture")
    features_MD = reference_of_split(recipe, size=5).features_MD
    assert features_MD is not None
    assert features_MD[:, 0].tolist() == [0, 1, 2, *range(4, 30), *range(35, 40)]


def test_pictures_of_a_file_are_a_reference(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", arr_0=PICTURES_NHWC)
    reference = read_reference(tmp_path / "reference.npz", 2, Corners)
    assert reference.features_MD is not None
    np.testing.assert_array_equal(reference.features_MD, CORNERS_N2)
    np.testing.assert_allclose(reference.statistics.mean_D, CORNERS_N2.mean(axis=0))
    np.testing.assert_allclose(reference.statistics.covariance_DD, np.cov(CORNERS_N2.T))


def test_statistics_alone_are_a_reference_of_the_distance_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", mu=MU, sigma=SIGMA)
    reference = read_reference(tmp_path / "reference.npz", 2, no_features)
    assert reference.features_MD is None
    np.testing.assert_array_equal(reference.statistics.mean_D, MU)
    np.testing.assert_array_equal(reference.statistics.covariance_DD, SIGMA)
    assert reference.statistics.covariance_DD.dtype == np.float64


def test_statistics_beside_pictures_are_the_distances_reference(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", arr_0=PICTURES_NHWC, mu=MU, sigma=SIGMA, mu_s=MU)
    reference = read_reference(tmp_path / "reference.npz", 2, Corners)
    assert reference.features_MD is not None
    np.testing.assert_array_equal(reference.features_MD, CORNERS_N2)
    np.testing.assert_array_equal(reference.statistics.mean_D, MU)
    assert require_reference(tmp_path / "reference.npz", 2) == "7 pictures and mu and sigma"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"mu": MU, "sigma": SIGMA[:1]}, r"are of shapes \[\(2,\), \(1, 2\)\], and .* gives 2 numbers a picture"),
        ({"mu": MU}, r"are of shapes \[\(2,\)\]"),
        ({"mean": MU}, "has neither arr_0 nor mu and sigma"),
        ({"arr_0": PICTURES_NHWC[:3]}, "holds 3 pictures: the scores need 4 to compare with"),
        ({"arr_0": PICTURES_NHWC[0], "mu": MU, "sigma": SIGMA}, "pictures are uint8"),
    ],
)
def test_a_file_that_is_no_reference_is_refused(
    arrays: dict[str, np.ndarray], sentence: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(DataError, match=sentence):
        read_reference(tmp_path / "reference.npz", 2, Corners)


def test_a_reference_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz is neither a folder nor a readable"):
        read_reference(tmp_path / "gone.npz", 2, Corners)
