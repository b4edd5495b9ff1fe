"""Our reading of stlpips_pytorch's weights gives what that package's own forward gave."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from common.errors import CheckpointError, RecipeError
from common.models.perceptual.shift_tolerant_lpips import ShiftTolerantLpips
from common.models.perceptual.spec import ShiftTolerantLpipsSpec

needs_weights = pytest.mark.skipif(find_spec("stlpips_pytorch") is None, reason="needs the extra `demo`")

# stlpips_pytorch 0.0.2, LPIPS(net=net, variant="shift_tolerant") on `images(side)`.
GOLDEN = {
    ("alex", 32): [[0.00514424, 0.06650305, 0.08273671], [0.00474922, 0.05237551, 0.04393281]],
    ("alex", 64): [[0.00070877, 0.03929427, 0.04278129], [0.00093633, 0.03968379, 0.03897382]],
    ("vgg", 32): [[0.00014963, 0.06765918, 0.06954780], [0.00014730, 0.06924050, 0.07631988]],
    ("vgg", 64): [[0.00011558, 0.06836033, 0.07059649], [0.00011586, 0.06919632, 0.06947718]],
}


def build(net: Literal["alex", "vgg"], weights: str | None = None) -> ShiftTolerantLpips:
    return ShiftTolerantLpips(ShiftTolerantLpipsSpec(family="shift_tolerant_lpips", net=net, weights=weights))


def images(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sources and three samples of each, the first of them close to its source."""
    draws = np.random.default_rng(0)
    sources_BCHW = torch.from_numpy(draws.uniform(-1, 1, (2, 3, side, side)).astype("float32"))
    samples_BGCHW = torch.from_numpy(draws.uniform(-1, 1, (2, 3, 3, side, side)).astype("float32"))
    samples_BGCHW[:, 0] = sources_BCHW * 0.9
    return sources_BCHW, samples_BGCHW


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distances_are_those_of_the_package(net: Literal["alex", "vgg"]) -> None:
    metric = build(net)
    for side in (32, 64):
        sources_BCHW, samples_BGCHW = images(side)
        distance_BG = metric.distance(samples_BGCHW, metric.reference_features(sources_BCHW))
        assert distance_BG.dtype == torch.float32
        torch.testing.assert_close(distance_BG, torch.tensor(GOLDEN[net, side]), rtol=1e-5, atol=1e-6)


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize(("side", "grid_size"), [(32, 8), (48, 3), (64, 4), (40, 5)])
def test_the_mean_of_the_map_is_the_distance(net: Literal["alex", "vgg"], side: int, grid_size: int) -> None:
    metric = build(net)
    sources_BCHW, samples_BGCHW = images(side)
    reference = metric.reference_features(sources_BCHW)
    map_BGT = metric.distance_map(samples_BGCHW, reference, grid_size)
    assert map_BGT.shape == (2, 3, grid_size**2)
    torch.testing.assert_close(map_BGT.mean(-1), metric.distance(samples_BGCHW, reference), rtol=0, atol=1e-6)


@needs_weights
def test_the_map_shows_where_two_pictures_differ() -> None:
    metric = build("alex")
    sources_BCHW, _ = images(64)
    samples_BGCHW = sources_BCHW[:, None].clone()
    samples_BGCHW[..., :16, 48:] *= -1  # the token at the upper right of a 4 x 4 grid
    map_BGT = metric.distance_map(samples_BGCHW, metric.reference_features(sources_BCHW), 4)
    assert map_BGT.argmax(-1).tolist() == [[3], [3]]
    assert (map_BGT[..., 12] < 0.01 * map_BGT[..., 3]).all()


@needs_weights
def test_a_sample_equal_to_its_source_has_distance_zero_and_a_finite_gradient() -> None:
    metric = build("alex")
    sources_BCHW = torch.zeros(1, 3, 32, 32)  # flat, so that whole feature columns are zero
    samples_BGCHW = sources_BCHW.unsqueeze(1).clone().requires_grad_()

    distance_BG = metric.distance(samples_BGCHW, metric.reference_features(sources_BCHW))
    distance_BG.sum().backward()

    assert distance_BG.abs().max() < 1e-9
    assert samples_BGCHW.grad is not None
    assert samples_BGCHW.grad.isfinite().all()


@needs_weights
def test_the_metric_is_frozen_and_building_it_draws_no_global_random_number() -> None:
    state = torch.get_rng_state()
    metric = build("alex")
    assert torch.equal(torch.get_rng_state(), state)
    assert not metric.training
    assert not any(parameter.requires_grad for parameter in metric.parameters())


@needs_weights
@pytest.mark.parametrize(("net", "smallest"), [("alex", 21), ("vgg", 18)])
def test_images_below_the_smallest_side_are_refused(net: Literal["alex", "vgg"], smallest: int) -> None:
    metric = build(net)
    metric.reference_features(torch.zeros(1, 3, smallest, smallest))
    with pytest.raises(RecipeError, match=f"needs {smallest} a side"):
        metric.reference_features(torch.zeros(1, 3, smallest - 1, 64))


def test_an_absent_package_is_named_with_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.models.perceptual.shift_tolerant_lpips.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pip install stlpips_pytorch .*set perceptual\.weights"):
        build("alex")


def test_named_weights_that_are_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"perceptual\.weights names .*absent\.pth"):
        build("alex", str(tmp_path / "absent.pth"))


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"net.slice1.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights of shift-tolerant LPIPS"):
        build("alex", str(tmp_path / "other.pth"))
